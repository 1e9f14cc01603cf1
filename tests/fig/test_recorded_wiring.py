"""Records of wirings, found by a folder or by the name of an experiment."""

import os

import pytest

from fig.recorded_wiring import find_record
from genutil.exceptions import UserError


@pytest.fixture
def runs(tmp_path):
    """Folders of runs; those with a record were made before those without."""
    for name in (
        "re-20260101-000000", "re+lr=0.1-20260102-000000", "re-20260102-000000.2",
        "re+lr=0.1-20260102-000000.10", "re-other-20260103-000000", "re-other+lr=0.1-20260104-000000",
        "recorded-20260104-000000", "re-mine",
    ):  # fmt: skip
        (tmp_path / name).mkdir()
        (tmp_path / name / "wiring").mkdir()
        (tmp_path / name / "wiring" / "layout.json").touch()
    (tmp_path / "re+evaluate=True-20260103-000000").mkdir()
    (tmp_path / "re-20260105-000000").write_text("no folder")
    return tmp_path


def test_the_last_record_of_a_name_is_found(runs):
    os.utime(runs / "re-20260101-000000", (2**31, 2**31))  # touched later, but begun before
    assert find_record(runs / "re").parent.name == "re+lr=0.1-20260102-000000.10"
    assert find_record(runs / "re-other").parent.name == "re-other+lr=0.1-20260104-000000"
    assert find_record(runs / "re+lr=0.1").parent.name == "re+lr=0.1-20260102-000000.10"
    assert find_record(runs / "re-mine").parent.name == "re-mine"  # a folder itself
    assert find_record(runs / "re-mine" / "wiring").parent.name == "re-mine"


@pytest.mark.parametrize(
    "name", ["r", "re-", "re+lr", "record", "nothing/re", "re+evaluate=True-20260103-000000"]
)
def test_other_names_have_no_record(runs, name):
    with pytest.raises(UserError, match="has no recorded wiring; train with --record_wiring"):
        find_record(runs / name)


def test_a_record_of_an_earlier_version_is_found(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "wiring.npz").touch()
    assert find_record(tmp_path / "run") == find_record(tmp_path / "run" / "wiring.npz")
