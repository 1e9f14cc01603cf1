"""A zip file that grows while others read it.

A zip file's directory stands at its end, so that whoever appends has to write it anew, and with thousands of
members it is longer than what is appended. Here it stands some way behind the members:

    members | free room | directory

What is added goes into the free room. When that is full, the directory is written anew, further behind; the
room is an eighth of what is there or as long as the directory, so that all of this costs a small part of what
the members cost. Other programs find, at any time, the members that the directory tells of; `read_members`
finds all.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from wirings.files import write_atomically

_LOCAL = struct.Struct("<4s5H3I2H")
"""A member's header: signature, version, flags, method, time, date, checksum, two sizes, lengths of name and
extra field."""
_ENTRY = struct.Struct("<4s6H3I5H2I")
"""What the directory tells of a member: as its header, then more lengths, attributes, and where it is."""
_END = struct.Struct("<4s4H2IH")
_LARGE_END = struct.Struct("<4sQ2H2I4Q")
_LARGE_PLACE = struct.Struct("<4sIQI")
_FAR_PLACE = struct.Struct("<2HQ")
_MANY, _FAR = 0xFFFF, 0xFFFFFFFF
"""Where numbers of 16 and 32 bits end, and the zip64 records begin."""
_LARGEST = 2**28
"""Bytes of a member that is read."""
_UTF8, _UNIX, _MODE, _FIRST_DAY = 0x800, 3 << 8, 0o600 << 16, 1 << 5 | 1
"""Names are UTF-8; whose file modes they are, and which; 1 January 1980: files do not differ by time."""


class GrowingZip:
    """Adds members to a zip file that it begins.

    Args:
        path: the file; one that is there is replaced.
        members: the first ones, by name.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, members: Mapping[str, bytes]) -> None:
        self.path = path
        content, entries = _packed(members, 0)
        self._entries = bytearray(entries)
        self._count, self._end = len(members), len(content)
        self._directory, told = self._end, self._told_at(self._end)
        self._behind = self._end + len(told)
        write_atomically(path, lambda file: file.write(content + told))

    def add(self, members: Mapping[str, bytes]) -> None:
        """Add members. They are on the disk when this returns.

        Raises:
            FileNotFoundError: the file is gone.
            OSError: it cannot be written.
        """
        start = self._end
        content, entries = _packed(members, start)
        with open(self.path, "r+b") as file:
            self._entries += entries
            self._count += len(members)
            self._end += len(content)
            if self._end > self._directory:
                # Behind the old one, and before the members are written over that: there is always one.
                self._write_directory(file, max(self._end + self._end // 8, self._behind))
            file.seek(start)
            file.write(content)
            _settle(file)

    def close(self) -> None:
        """Let the directory tell of all members, right behind them.

        Raises:
            FileNotFoundError: the file is gone.
            OSError: it cannot be written.
        """
        with open(self.path, "r+b") as file:
            self._write_directory(file, self._end)
            file.truncate()
            _settle(file)

    def _write_directory(self, file: BinaryIO, place: int) -> None:
        told = self._told_at(place)
        file.seek(place)
        file.write(told)
        self._directory, self._behind = place, place + len(told)

    def _told_at(self, place: int) -> bytes:
        """The directory, if it stands at this place."""
        size, behind = len(self._entries), place + len(self._entries)
        large = b""
        if self._count >= _MANY or behind >= _FAR:
            counts = (self._count, self._count, size, place)
            large = _LARGE_END.pack(b"PK\x06\x06", _LARGE_END.size - 12, _UNIX | 45, 45, 0, 0, *counts)
            large += _LARGE_PLACE.pack(b"PK\x06\x07", 0, behind, 1)
        told = min(self._count, _MANY)
        end = _END.pack(b"PK\x05\x06", 0, 0, told, told, min(size, _FAR), min(place, _FAR), 0)
        return bytes(self._entries) + large + end


def _settle(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def read_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a zip file's members, up to the first that is not whole.

    They are read from the front: the directory does not tell of all of them while a writer is at work or
    after it was killed.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        while len(head := file.read(_LOCAL.size)) == _LOCAL.size:
            signature, _, _, method, _, _, checksum, packed, _, name_size, extra_size = _LOCAL.unpack(head)
            if signature != b"PK\x03\x04":
                return
            name = file.read(name_size + extra_size)[:name_size].decode(errors="replace")
            data = file.read(packed)
            try:
                content = _inflated(data) if method == zipfile.ZIP_DEFLATED else data
            except zlib.error:
                return
            if zlib.crc32(content) != checksum:
                return
            yield name, content


def _inflated(data: bytes) -> bytes:
    """At most so much that a damaged file cannot take all memory; the checksum then does not fit."""
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, _LARGEST)


def _packed(members: Mapping[str, bytes], place: int) -> tuple[bytes, bytes]:
    """Members as they stand in a file from `place` on, and what its directory tells of them."""
    content, entries = bytearray(), bytearray()
    for name, data in members.items():
        packed = _deflated(data)
        told, offset = name.encode(), place + len(content)
        sizes = (zlib.crc32(data), len(packed), len(data))
        kind = (20, _UTF8, zipfile.ZIP_DEFLATED, 0, _FIRST_DAY)
        far = _FAR_PLACE.pack(1, 8, offset) if offset >= _FAR else b""
        entries += _ENTRY.pack(
            b"PK\x01\x02", _UNIX | 45, *kind, *sizes, len(told), len(far), 0, 0, 0, _MODE, min(offset, _FAR)
        )  # fmt: skip
        entries += told + far
        content += _LOCAL.pack(b"PK\x03\x04", *kind, *sizes, len(told), 0) + told + packed
    return bytes(content), bytes(entries)


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()
