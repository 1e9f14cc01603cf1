"""A zip file that is read while it grows: whole for everybody, and cheap for its writer."""

import os
import struct
import zipfile

import pytest

from genutil.runs.growing_zip import GrowingZip, read_members


def contents(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_members_come_back(tmp_path):
    members = {"a": b"1" * 1000, "é/b": b"", "c": bytes(range(256))}
    growing = GrowingZip(tmp_path / "z", {"a": members["a"]})
    assert contents(tmp_path / "z") == {"a": members["a"]}
    growing.add({name: members[name] for name in ("é/b", "c")})
    growing.close()
    assert contents(tmp_path / "z") == dict(read_members(tmp_path / "z")) == members
    with zipfile.ZipFile(tmp_path / "z") as archive:
        last = archive.infolist()[-1]
        assert archive.start_dir == last.header_offset + 30 + len("c") + last.compress_size  # no free room


def test_the_directory_is_written_seldom(tmp_path, monkeypatch):
    written = []
    write = GrowingZip._write_directory
    monkeypatch.setattr(
        GrowingZip,
        "_write_directory",
        lambda self, file, place: (written.append(place), write(self, file, place)),
    )
    growing = GrowingZip(tmp_path / "z", {})
    for number in range(1000):
        growing.add({f"{number:06}": os.urandom(1000)})
    assert len(written) < 80
    assert len(dict(read_members(tmp_path / "z"))) == 1000
    assert len(contents(tmp_path / "z")) > 870


@pytest.mark.parametrize("part", [0.5, 1])
def test_a_writer_that_is_killed_on_the_way_breaks_no_reader(part, tmp_path, monkeypatch):
    """Within the directory that it writes, or behind that."""
    growing = GrowingZip(tmp_path / "z", {"a": b"1"})
    growing.add({"b": b"2"})

    def killed(self, file, place):
        told = self._told_at(place)
        file.seek(place)
        file.write(told[: int(part * len(told))])
        raise OSError("killed")

    monkeypatch.setattr(GrowingZip, "_write_directory", killed)
    with pytest.raises(OSError, match="killed"):
        growing.add({"c": bytes(1000)})
    with zipfile.ZipFile(tmp_path / "z") as archive:
        assert {name: archive.read(name) for name in "ab"} == {"a": b"1", "b": b"2"}
    assert dict(read_members(tmp_path / "z")) == {"a": b"1", "b": b"2"}


def test_more_members_than_16_bits_count(tmp_path):
    members = {f"{number}": b"" for number in range(70_000)}
    GrowingZip(tmp_path / "z", {}).add(members)
    with zipfile.ZipFile(tmp_path / "z") as archive:
        assert archive.namelist() == list(members)
    _, large = (tmp_path / "z").read_bytes().split(b"PK\x06\x06")  # Python does without, others do not
    assert struct.unpack_from("<Q2H2I2Q", large)[-2:] == (70_000, 70_000)


def test_places_that_32_bits_do_not_tell(tmp_path):
    growing = GrowingZip(tmp_path / "z", {"a": b"1"})
    growing._end = 5 << 30  # a hole: the file takes no room on the disk
    growing.add({"b": b"2"})
    growing.close()
    assert contents(tmp_path / "z") == {"a": b"1", "b": b"2"}


def test_a_file_that_is_gone(tmp_path):
    growing = GrowingZip(tmp_path / "z", {})
    (tmp_path / "z").unlink()
    with pytest.raises(FileNotFoundError):
        growing.add({"a": b"1"})
    with pytest.raises(FileNotFoundError):
        growing.close()
