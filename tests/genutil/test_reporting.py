"""Names of run folders and what stands in them."""

import re
import subprocess

import pytest

from genutil import reporting
from genutil.config import load_config
from genutil.errors import UserError
from genutil.reporting import RunFolder, commit, run_label, run_settings


def test_label_is_short_and_safe(write_app):
    config = load_config(write_app(), {"topk": [1, 2], "save_dir": "/else/where", "name": "a", "lr": 0.2})
    assert run_label(config) == "a+topk=_1_2_+lr=0.2"
    long = load_config(write_app(), {"model_args": {"x" * 200: "/../"}})
    assert len(run_label(long)) <= 100
    assert re.fullmatch(r"[A-Za-z0-9_.+=-]+", run_label(long))


def test_two_runs_of_one_second_get_two_folders(write_app, monkeypatch):
    monkeypatch.setattr(reporting.time, "strftime", lambda _format: "20260101-000000")
    config = load_config(write_app())
    assert RunFolder(run_settings(config)).path.name == "tiny-20260101-000000"
    assert RunFolder(run_settings(config)).path.name == "tiny-20260101-000000.2"


def test_a_log_dir_that_is_a_file(write_app, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written to"):
        RunFolder(run_settings(load_config(write_app(), {"log_dir": str(tmp_path / "file")})))


def test_commit_without_git(monkeypatch):
    def missing(*_args, **_options):
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", missing)
    assert commit() is None


@pytest.mark.parametrize("line", ["nonsense", "3", "{}", '{"step": "1"}', "[" * 100_000, "\udcff"])
def test_lines_of_metrics_that_cannot_be_read_are_dropped(write_app, line):
    """By a start after a failure, which goes on with the folder of the earlier one."""
    settings = run_settings(load_config(write_app()))
    folder = RunFolder(settings)
    folder.add_metrics({"step": 1})
    with open(folder.path / "metrics.jsonl", "a", errors="surrogateescape") as file:
        file.write(f"{line}\n")
    folder.add_metrics({"step": 2})
    assert RunFolder(settings, folder.path, step=2).metrics() == [{"step": 1}, {"step": 2}]
