"""The README and docs: every command in them is run, every example in them works."""

import importlib
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.run import get_args_parser

import runner
from genutil.config.command_line import parse_command_line
from genutil.config.keys_page import keys_page
from tests.conftest import ROOT
from tests.helpers.documentation import COMMANDS, PAGES, RUNNER, SPARSE, blocks
from tests.helpers.processes import run_together
from wirings.command import make_parser

DIGITS = [command for command in RUNNER if "apps/quickstart/digits" in command]
PICTURES = [command for command in COMMANDS if command.startswith("python -m fig.")]


OTHER_PYTHON = (
    "torchvision.models.resnet18",  # below
    "wirings.compile(",  # this in test_inference_page.py, with its commands
    "my_rules.DropAndGrow",  # these in test_adding.py
    "def same_logits",
)


def test_every_block_is_run_by_a_test():
    for block in blocks("python") + blocks("yaml"):
        known = [words for words in OTHER_PYTHON if words in block]
        known += [start for start in ("# my_", "# apps/") if block.startswith(start)]
        assert len(known) == 1, block


@pytest.fixture
def no_further_imports(monkeypatch, tmp_path, seeds_in_this_process):
    """Several seeds are trained here, several processes are forked from one that has imported torch."""

    def launch(script, argv, processes, max_restarts):
        return max(ended.status for ended in run_together(processes, argv, tmp_path))

    monkeypatch.setattr(runner, "launch", launch)


@pytest.fixture(scope="module")
def example():
    """The README's lines of Python up to the end of the training, and those after it."""
    (block,) = [block for block in blocks("python") if "torchvision.models.resnet18" in block]
    training, _, after = block.partition("\n\nprint(")
    return training.splitlines(), "print(" + after


def test_three_lines_wire_a_network_and_train_it(example):
    torch.manual_seed(0)
    wired = [line for line in example[0] if "wiring" in line]
    assert len(wired) == 3
    plain = {}
    exec("\n".join(line for line in example[0] if line not in wired), plain)
    assert type(plain["model"].conv1) is nn.Conv2d
    assert plain["loss"].isfinite()


def test_python_example(example, capsys):
    torch.manual_seed(0)
    names = {}
    exec("\n".join(example[0]), names)
    masks, images = names["wiring"].adjacency(), names["images"]
    with torch.no_grad():
        logits = names["model"].eval()(images)
    exec(example[1], names)
    torch.testing.assert_close(names["small"](images), logits, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(names["plain"](images), logits, rtol=1e-3, atol=1e-4)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("| layer")
    assert printed[-1].startswith("| total") and printed[-1].endswith("10.00% |")
    assert names["plain"] is names["model"]
    assert type(names["plain"].conv1) is nn.Conv2d
    assert len(masks) == 21
    for name, mask in masks.items():
        assert not names["plain"].get_parameter(name)[~mask].any()


def test_keys_page_is_up_to_date():
    assert (ROOT / "docs" / "keys.md").read_text() == keys_page()


SMALL = ["--dim", "80", "--downsample_dim", "8", "--feature_dim", "10", "--batch_size", "256"]
"""Sizes of a graph that shows the order of the commands and their options in less time."""


def test_digits_commands_run_in_their_order(tmp_path, monkeypatch, capsys, no_further_imports):
    """And what is drawn from their runs. At one epoch, with a small graph, in folders of the test's own."""
    monkeypatch.chdir(ROOT)
    assert len(DIGITS) >= 6 and len(PICTURES) >= 5
    for command in dict.fromkeys(COMMANDS):  # pages repeat some
        if command not in DIGITS + PICTURES:
            continue
        argv = shlex.split(command)[2:]
        argv = [re.sub(r"^(checkpoints|runs)\b", rf"{tmp_path}/\1", word) for word in argv]
        if command in PICTURES:
            program = importlib.import_module(argv.pop(0))
            assert program.main([word for word in argv if word != "--open"]) == 0, command
            continue
        argv += ["--num_epochs", "1", *SMALL]
        argv += ["--save_dir", f"{tmp_path}/checkpoints", "--log_dir", f"{tmp_path}/runs"]
        assert runner.main(argv) == 0, (command, capsys.readouterr().err)


@pytest.mark.parametrize(
    "command", [c for c in RUNNER if c not in DIGITS and "my_" not in c and "--help" not in c]
)
def test_commands_for_larger_data_resolve(command, monkeypatch):
    """These need downloads or hours; test_apps.py builds and trains each of them for a step."""
    monkeypatch.chdir(ROOT)
    config = parse_command_line(shlex.split(command)[2:]).config
    assert config.name in command


def test_example_of_an_experiment_file_is_the_file():
    (block,) = [block for block in blocks("yaml") if block.startswith("# apps/")]
    path = block.splitlines()[0].removeprefix("# ")
    lines = (ROOT / path).read_text().splitlines()
    assert block.splitlines()[1:] == [line for line in lines if not line.startswith("#")]


OTHER = {
    "make": lambda words: subprocess.run(
        ["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True
    ),
    "python3 -m venv": lambda words: None,  # done by the Makefile in every run of the tests
    ".venv/bin/pip install": lambda words: [(ROOT / file).read_text() for file in words[3::2]],
    ".venv/bin/python -m": lambda words: importlib.import_module(words[2]),
    "python -m benchmarks": lambda words: shown_help(words[2]),
    "python runner.py --help": lambda words: None,  # run in tests/genutil/test_exit_codes.py
    "torchrun": lambda words: started_by_torchrun(words[1:]),
    "sbatch": lambda words: resolved(words[2], words[3:]),  # tests/test_slurm.py runs it
    # tests/imagenet_sparsity_experiments/test_readme.py runs these
    f"python {SPARSE.name}/": lambda words: (ROOT / words[1]).read_text(),
    f"bash {SPARSE.name}/": lambda words: (ROOT / words[1]).read_text(),
    # tests/test_inference_page.py runs these
    "python -m wirings.native": lambda words: importlib.import_module(words[2]),
    "gcc": lambda words: [
        (ROOT / word).stat() for word in words if "/kernels" in word or word.endswith(".c")
    ],
    "./classify": lambda words: None,
    "tensorboard": lambda words: importlib.import_module("tensorboard.main"),
    "wirings": lambda words: make_parser().parse_args(words[1:]),  # run in tests/wirings/test_command.py
}


def started_by_torchrun(words):
    """tests/test_several_processes.py runs two of them."""
    options = get_args_parser().parse_args(words)
    assert (options.nnodes, options.nproc_per_node, options.training_script) == ("2", "4", "runner.py")
    app, *argv = options.training_script_args
    resolved(app.removeprefix("app:"), argv)


def resolved(app, argv):
    assert parse_command_line([f"app:{ROOT / app}", *argv]).config.name == Path(app).stem


def shown_help(name):
    """As `python -m NAME --help`, but in this process, where torch is imported already."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", [name, "--help"])
        runpy.run_path(str(ROOT / f"{name.replace('.', '/')}.py"), run_name="__main__")
    assert ended.value.code in (0, None)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in RUNNER + PICTURES or "--help" in c])
def test_other_commands(command):
    (check,) = [check for start, check in OTHER.items() if command.startswith(start)]
    check(shlex.split(command))


def test_every_path_in_the_pages_exists():
    for page in PAGES:
        for path in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", page.read_text()):
            assert (page.parent / path).exists(), (page, path)
        for name in re.findall(
            r"`((?:tests|genutil|models|data|trainers|fig|apps|wirings|imagenet_sparsity_experiments)/[\w./]+\.\w+)`",
            page.read_text(),
        ):
            assert Path(ROOT / name).exists(), (page, name)
