"""Names of experiments and the folders that they give."""

import json
import re

import pytest

import runner
from genutil.config import load_config
from genutil.experiment_name import checked_name, folder_name
from genutil.runs.run_folder import run_label
from tests.conftest import ROOT


@pytest.mark.parametrize("name", ["tiny", "a..b", "x_", "_x", "lr=0.1+a-b", "x" * 100, "my_exp-8fac5ac4"])
def test_names_of_safe_letters_are_the_folders(name):
    assert folder_name(checked_name(name)) == name


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("my exp", "my_exp-"),
        ("café", "cafe-"),
        ("实验", "experiment-"),
        (".hidden", "hidden-"),
        ("--resume", "resume-"),
        ("$(rm) *", "rm-"),
        ("é" * 100, "e" * 91 + "-"),
    ],
)
def test_other_names_give_a_safe_folder_with_a_checksum(name, start):
    found = folder_name(checked_name(name))
    assert re.fullmatch(rf"{re.escape(start)}[0-9a-f]{{8}}", found)
    assert len(found) <= 100


def test_two_names_have_two_folders():
    names = [
        "my exp",
        "my_exp",
        "my  exp",
        "my-exp",
        "my:exp",
        "Café",
        "Cafe",
        "实验",
        "实",
        "é",
        "e",
    ]
    assert len({folder_name(name) for name in names}) == len(names)


@pytest.mark.usefixtures("seeds_in_this_process")
@pytest.mark.parametrize("seeds", [[], ["--seeds", "1"]])
def test_a_name_of_any_letters_from_the_command_to_the_results(write_app, tmp_path, capfd, seeds):
    app = write_app("my exp é.yml", num_epochs=1)
    name = "my exp é-seed1" if seeds else "my exp é"
    assert runner.main([f"app:{app}", *seeds]) == 0
    (results,) = (tmp_path / "runs").glob("*/results.json")
    assert json.loads(results.read_text())["name"] == name
    assert re.fullmatch(rf"{folder_name(name)}-\d{{8}}-\d{{6}}", results.parent.name)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [folder_name(name)]
    assert f"{name}\n" in capfd.readouterr().out
    assert runner.main([f"app:{app}", *seeds, *([] if seeds else ["--resume", "auto"])]) == 0
    assert len([*(tmp_path / "runs").iterdir()]) == 1


@pytest.mark.parametrize(
    ("overrides", "label"),
    [
        ({"name": "digits-seed1", "seed": 1, "num_epochs": 1}, "digits-seed1+num_epochs=1"),
        ({"name": "digits-seed10", "seed": 1}, "digits-seed10+seed=1"),
        ({"name": "digits-seed1.5", "seed": 1}, "digits-seed1.5+seed=1"),
        ({"name": "a lr=0.2", "lr": 0.2, "dim": 90}, "a_lr=0.2-03f1d4b5+dim=90"),
        ({"record_wiring": True, "record_interval": 3, "log_interval": 4, "processes": 2}, "digits_dnw"),
        ({"timeout": 5, "max_restarts": 1, "keep_last": 3, "skip_profiling": True}, "digits_dnw"),
        ({"evaluate": True, "resume": "x.pt"}, "digits_dnw+evaluate=True"),
    ],
)
def test_a_run_s_folder_names_what_decides_its_results(overrides, label):
    config = load_config(ROOT / "apps/quickstart/digits_dnw.yml", overrides)
    assert re.sub(r"-[0-9a-f]{8}(?=\+)", "-03f1d4b5", run_label(config)) == label
