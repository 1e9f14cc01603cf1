"""The folder's README: every command in it works."""

import shlex

import pytest

from imagenet_sparsity_experiments import main
from imagenet_sparsity_experiments.options import parse_options
from tests.conftest import ROOT
from tests.helpers.documentation import COMMANDS
from tests.imagenet_sparsity_experiments.test_scripts import FOLDER, arguments

OURS = [command for command in COMMANDS if "imagenet_sparsity_experiments" in command]
MAIN = "imagenet_sparsity_experiments/main.py"


@pytest.mark.parametrize("command", [c for c in OURS if "synthetic" in c or "--benchmark-inference" in c])
def test_commands_without_images_run(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main.main(shlex.split(command.replace("--prof 20", "--prof 2"))[2:]) == 0
    assert "kept weights" in capsys.readouterr().out


@pytest.mark.parametrize("command", [c for c in OURS if "datasets" in c or c.startswith("bash")])
def test_commands_for_larger_data_are_understood(command, tmp_path):
    """tests/imagenet_sparsity_experiments/test_scripts.py trains and evaluates with the same scripts."""
    words = shlex.split(command)
    if words[0] == "bash":
        (words,) = arguments(tmp_path, ROOT / words[1], *words[2:])
    assert (ROOT / words[0]).is_file() or words[0] == "python"
    places = [number for number, word in enumerate(words) if word.endswith(MAIN)]
    options = parse_options(words[places[-1] + 1 :]).values
    if command.startswith("bash"):
        given = shlex.split(command)
        assert options["model_config"] == given[2]
        assert given[3] in (options["pretrained_weights"], options["workspace"].removeprefix("runs/"))


def test_help_is_shown(capsys):
    assert f"python {MAIN} --help" in OURS
    with pytest.raises(SystemExit) as ended:
        main.main(["--help"])
    assert ended.value.code == 0


def test_published_table():
    text = (FOLDER / "README.md").read_text()
    for row in (
        "74.026 | 76.158 | 76.904 | 77.290 | 77.528 | 77.536 | 77.604 | 77.610 | 77.488 | 77.510",
        "75.044 | 76.600 | 77.076 | 77.456 | 77.570 | 77.564 | 77.492 | 77.284 | 77.382 | 77.510",
    ):
        assert row in text
    assert "MEASURED" not in text
