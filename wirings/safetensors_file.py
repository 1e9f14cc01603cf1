"""Reading `.safetensors` files: a header in JSON and the bytes of tensors. Nothing in them can be executed.

Format: 8 bytes with the length of the header (little-endian), the header, the data. The header maps each name
to `dtype`, `shape` and `data_offsets` (begin and end in the data); the tensors cover the data without gaps or
overlaps. Source: the specification of the safetensors project.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_MAX_HEADER = 100_000_000
"""Bytes; the limit of the specification."""
_MAX_DIMENSIONS, _MAX_NAME = 64, 1000
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file by name, on the CPU, and its metadata.

    Raises:
        ValueError: the file does not follow the format, or has a dtype that is not supported.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2) - 8
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if size < 0 or length > min(size, _MAX_HEADER):
            raise ValueError("its header is longer than the file or the format allow")
        header = _parse(file.read(length))
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
            raise ValueError("its __metadata__ is not a mapping of text")
        entries = sorted(
            (_entry(name, value) for name, value in header.items()), key=lambda entry: entry[1:3]
        )
        _check_cover(entries, size - length)
        data = bytearray(file.read(size - length))
    return {name: _tensor(data, begin, dtype, shape) for name, begin, _end, dtype, shape in entries}, metadata


_Entry = tuple[str, int, int, torch.dtype, list[int]]


def _parse(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode(), object_pairs_hook=_without_duplicates)
    except RecursionError as error:
        raise ValueError("its header is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError("its header is not text in UTF-8") from error
    if not isinstance(header, dict):
        raise ValueError("its header is not a mapping")
    return header


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a name occurs twice in its header")
    return mapping


def _entry(name: str, value: Any) -> _Entry:
    if not name.isprintable() or len(name) > _MAX_NAME:
        raise ValueError(f"{name[:20]!a}… in its header is not the name of a weight")
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name} has no dtype, shape and data_offsets")
    kind, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(kind, str) or kind not in _DTYPES:
        raise ValueError(f"{name} has dtype {str(kind)[:20]}, which is not supported")
    if not (
        _are_sizes(shape) and len(shape) <= _MAX_DIMENSIONS and _are_sizes(offsets) and len(offsets) == 2
    ):
        raise ValueError(f"the shape or the data_offsets of {name} are not sizes")
    if offsets[1] - offsets[0] != math.prod(shape) * _DTYPES[kind].itemsize:
        raise ValueError(f"the data_offsets of {name} do not fit its shape and dtype")
    return name, offsets[0], offsets[1], _DTYPES[kind], shape


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _check_cover(entries: list[_Entry], size: int) -> None:
    covered = 0
    for name, begin, end, *_ in entries:
        if begin != covered:
            raise ValueError(f"there is a gap or an overlap before the data of {name}")
        covered = end
    if covered != size:
        raise ValueError(f"it holds {size} bytes of data, its header describes {covered}")


def _tensor(data: bytearray, begin: int, dtype: torch.dtype, shape: list[int]) -> Tensor:
    count = math.prod(shape)
    if not count:
        return torch.empty(shape, dtype=dtype)
    if dtype == torch.bool:  # a byte other than 0 and 1 is not a valid truth value
        return torch.frombuffer(data, dtype=torch.uint8, count=count, offset=begin).view(shape) != 0
    raw = torch.frombuffer(data, dtype=torch.uint8, count=count * dtype.itemsize, offset=begin)
    return raw.clone().view(dtype).view(shape)  # a copy, since the data need not be aligned
