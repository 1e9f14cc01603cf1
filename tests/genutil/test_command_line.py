"""The command line: every way to write a key, and what it answers to mistakes."""

import subprocess
import sys

import pytest

from genutil.config.command_line import parse_command_line
from genutil.config.schema import schema
from genutil.exceptions import ConfigError
from tests.conftest import ROOT


@pytest.fixture
def parse(write_app):
    path = write_app()

    def run(*argv):
        return parse_command_line([f"app:{path}", *argv]).config

    return run


def test_ways_to_write_a_key(parse):
    assert parse("--lr", "0.5").lr == 0.5
    assert parse("--lr=0.5").lr == 0.5
    assert parse("--weight-decay", "1e-4").weight_decay == 1e-4
    assert parse("--topk", "1", "3").topk == [1, 3]
    assert parse("--gpus", "0", "1").gpus == [0, 1]
    assert parse("--gpus").gpus == []
    assert parse().gpus is None
    assert parse("--nesterov").nestorov is True
    assert parse("--skip-profiling").skip_profiling is True
    assert parse("--skip_profiling", "False").skip_profiling is False
    assert parse("--skip_profiling", "--no-skip-profiling").skip_profiling is False
    assert parse("--noskip_profiling").skip_profiling is False
    assert parse("--no-nesterov").nestorov is False
    assert parse("--test_batch_size", "none").test_batch_size is None
    assert parse("--model_args", "a=1", "b=x").model_args == {"a": "1", "b": "x"}
    assert parse("--lr", "0.1", "--lr", "0.2").lr == 0.2


def test_the_experiment_may_stand_anywhere(write_app):
    path = write_app()
    for argv in (["--gpus", "0", f"app:{path}"], [str(path), "--gpus", "0"], [f"app:{path}", "--gpus", "0"]):
        assert parse_command_line(argv).config.gpus == [0]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--lr", "-1"], "lr: must be greater than 0, got '-1'  (--lr)"),
        (["--lr", "-1e-3"], "lr: must be greater than 0, got '-1e-3'"),
        (["--lr"], "lr: takes one value, got none"),
        (["--lr", "1", "2"], "lr: takes one value, got 1 2"),
        (["--lrr", "1"], "lrr: unknown key; did you mean lr?  (--lrr)"),
        (["--learning-rate=3"], "unknown key"),
        (["-lr", "1"], "-lr: unexpected argument; did you mean lr?"),
        (["--evaluate", "maybe"], "evaluate: must be a valid boolean"),
        (["--model_args", "a"], "model_args: takes name=value pairs, got 'a'"),
        (["--no-lr"], "no_lr: unknown key"),
    ],
)
def test_mistakes(parse, argv, message):
    with pytest.raises(ConfigError) as caught:
        parse(*argv)
    assert message in str(caught.value)


def test_one_experiment_is_needed(write_app):
    with pytest.raises(ConfigError, match="which experiment"):
        parse_command_line(["--lr", "1"])
    with pytest.raises(ConfigError, match="one experiment at a time"):
        parse_command_line([f"app:{write_app('a.yml')}", f"app:{write_app('b.yml')}"])


def command(*argv):
    return subprocess.run(
        [sys.executable, str(ROOT / "runner.py"), *argv], capture_output=True, text=True, timeout=60
    )


def test_help_lists_every_key_without_torch():
    code = "import sys, runner; assert runner.main(sys.argv[1:]) is None"
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for key in schema():
        assert f"--{key}" in done.stdout
    code = (
        "import sys, genutil.config.command_line, runner;"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


def test_print_config(write_app):
    done = command(f"app:{write_app()}", "--lr", "5e-5", "--print-config")
    assert done.returncode == 0
    assert "lr: 5.0e-05" in done.stdout


def test_mistakes_exit_with_2_and_without_traceback(write_app):
    done = command(f"app:{write_app()}", "--lr", "-1", "--fast_eval")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "2 problems" in done.stderr
