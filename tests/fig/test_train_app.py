"""Trainings that programs of fig start."""

import pytest

from fig.train_app import train_app
from genutil.exceptions import ConfigError


@pytest.mark.slow
def test_a_run_in_folders_with_spaces(write_app, tmp_path):
    folder = tmp_path / "my  runs of today"
    status, results = train_app(str(write_app(num_epochs=1)), ["--log_dir", str(folder), "--workers", "0"])
    assert status == 0
    assert results["folder"].startswith(f"{folder}/tiny")


def test_options_that_leave_no_results(write_app, capfd):
    assert train_app(str(write_app()), ["--print_config"]) == (2, {})
    printed = capfd.readouterr()
    assert "num_epochs: 2" in printed.out
    assert "left no results; remove the options that train nothing" in printed.err


def test_wrong_options_are_refused_before_anything_starts(write_app):
    with pytest.raises(ConfigError, match="lr: must be greater than 0"):
        train_app(str(write_app()), ["--lr", "-1"])


def test_results_of_a_run_before_are_not_taken(write_app, tmp_path, capfd, trains_in_this_process):
    app = str(write_app(num_epochs=1))
    options = ["--log_dir", str(tmp_path / "runs"), "--workers", "0"]
    assert train_app(app, options)[0] == 0
    assert train_app(app, [*options, "--print_config"]) == (2, {})


def test_the_status_of_a_failed_run(write_app, tmp_path, capfd, trains_in_this_process):
    (tmp_path / "runs").write_text("no folder")
    assert train_app(str(write_app()), ["--log_dir", str(tmp_path / "runs"), "--workers", "0"]) == (2, {})
    assert "left no results" not in capfd.readouterr().err
