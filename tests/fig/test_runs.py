"""Starting a run, and finding its record."""

import os

import pytest

from fig.runs import find_record, train
from genutil.errors import UserError


def test_a_run_in_folders_with_spaces(write_app, tmp_path):
    folder = tmp_path / "my  runs of today"
    status, results = train(str(write_app(num_epochs=1)), ["--log_dir", str(folder), "--workers", "0"])
    assert status == 0
    assert results["folder"].startswith(f"{folder}/tiny")


def test_options_that_leave_no_results(write_app, capfd):
    assert train(str(write_app()), ["--print_config"]) == (2, {})
    told = capfd.readouterr()
    assert "num_epochs: 2" in told.out
    assert "left no results; leave out options that train nothing" in told.err


def test_status_of_a_refused_run(write_app, capfd):
    assert train(str(write_app()), ["--lr", "-1"]) == (2, {})
    assert "left no results" not in capfd.readouterr().err


@pytest.fixture
def runs(tmp_path):
    """Folders of runs; those with a record were made before those without."""
    for name in (
        "re-20260101-000000", "re+lr=0.1-20260102-000000", "re-20260102-000000.2",
        "re+lr=0.1-20260102-000000.10", "re-other-20260103-000000", "re-other+lr=0.1-20260104-000000",
        "recorded-20260104-000000", "re-mine",
    ):  # fmt: skip
        (tmp_path / name).mkdir()
        (tmp_path / name / "wiring.npz").write_bytes(b"")
    (tmp_path / "re+evaluate=True-20260103-000000").mkdir()
    (tmp_path / "re-20260105-000000").write_text("no folder")
    return tmp_path


def test_the_last_record_of_a_name_is_found(runs):
    os.utime(runs / "re-20260101-000000", (2**31, 2**31))  # touched later, but begun before
    assert find_record(runs / "re").parent.name == "re+lr=0.1-20260102-000000.10"
    assert find_record(runs / "re-other").parent.name == "re-other+lr=0.1-20260104-000000"
    assert find_record(runs / "re+lr=0.1").parent.name == "re+lr=0.1-20260102-000000.10"
    assert find_record(runs / "re-mine").parent.name == "re-mine"  # a folder itself
    assert find_record(runs / "re-mine" / "wiring.npz").parent.name == "re-mine"


@pytest.mark.parametrize(
    "name", ["r", "re-", "re+lr", "record", "nothing/re", "re+evaluate=True-20260103-000000"]
)
def test_other_names_have_no_record(runs, name):
    with pytest.raises(UserError, match="there is no such file; train with --record_wiring"):
        find_record(runs / name)
