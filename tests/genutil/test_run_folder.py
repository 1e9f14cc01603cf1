"""Names of run folders and what stands in them."""

import os
import re
import subprocess

import pytest

from genutil.config import load_config
from genutil.exceptions import UserError
from genutil.runs import run_folder as reporting
from genutil.runs.run_folder import RunFolder, commit, run_label, run_settings


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


def git(folder, *argv):
    names = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(["git", *names, *argv], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with one commit, with the project's code in it."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("content")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-q", "-m", "first")
    monkeypatch.setattr(reporting, "_PROJECT", tmp_path)
    return tmp_path


def test_commit_of_the_checkout(repository, monkeypatch):
    expected = git(repository, "rev-parse", "HEAD")
    assert commit() == expected
    (repository / "file").write_text("changed")
    assert commit() == f"{expected}-dirty"
    git(repository, "worktree", "add", "-q", "beside")
    monkeypatch.setattr(reporting, "_PROJECT", repository / "beside")
    assert commit() == expected


def test_commit_of_a_repository_around_the_project_is_not_taken(repository, monkeypatch):
    """As in a virtual environment within another repository."""
    inner = repository / ".venv" / "lib" / "site-packages"
    inner.mkdir(parents=True)
    monkeypatch.setattr(reporting, "_PROJECT", inner)
    assert commit() is None
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    assert commit() is None


def test_commit_in_a_hook_of_another_repository(repository, tmp_path_factory, monkeypatch):
    other = tmp_path_factory.mktemp("other")
    git(other, "init", "-q")
    git(other, "commit", "-q", "--allow-empty", "-m", "other")
    expected = git(repository, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert commit() == expected


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
