"""The schematic picture: written."""

from fig import schematic
from tests.fig.drawn_files import written


def test_schematic(tmp_path):
    assert schematic.main(["--output", str(tmp_path / "s")]) == 0
    written(tmp_path, "s")
