"""Files in the format of CIFAR-10 and CIFAR-100: pickled dictionaries, read without executing anything."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genutil.exceptions import DataError

_PIXELS = 3 * 32 * 32
_NUMERIC = re.compile(r"b1|[iu][1248]")


def has_checksum(path: Path, md5: str) -> bool:
    """Whether a file has this checksum."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == md5


def read_batch(path: Path, label_key: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The images and labels of one file.

    Args:
        path: a pickled dictionary with `data`, uint8 (n, 3072), and the labels.
        label_key: name of the labels in it, n numbers.

    Returns:
        uint8 (n, 3, 32, 32), int64 (n).

    Raises:
        DataError: the file cannot be read, holds more than plain values and arrays of integers, or has no
            such images and labels.
    """
    try:
        content = _Restricted(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        named = {key.decode() if isinstance(key, bytes) else key: value for key, value in content.items()}
        images, labels = named["data"], named[label_key]
        images = images.values if isinstance(images, _Array) else np.asarray(images)
        labels = np.asarray(labels.values if isinstance(labels, _Array) else labels)
    except Exception as error:  # a damaged pickle raises errors of any type
        raise DataError(
            f"{path}: is not a CIFAR batch that can be read ({type(error).__name__}: {error}); it must be a "
            f"pickled dictionary with data and {label_key}, with only plain values and arrays of integers"
        ) from error
    if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != _PIXELS or not len(images):
        raise DataError(
            f"{path}: data must be uint8 of the shape (images, {_PIXELS}), not {images.dtype} {images.shape}"
        )
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise DataError(f"{path}: {label_key} must be {len(images)} integers, one for each image")
    pixels = torch.from_numpy(images.reshape(-1, 3, 32, 32).copy())
    return pixels, torch.from_numpy(labels.astype(np.int64))


class _Restricted(pickle.Unpickler):
    """Reads plain values; numpy's arrays become `_Array`, and any other name in a file is an error."""

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _DataType,
            ("_codecs", "encode"): _as_bytes,
        }
        for package in ("numpy.core", "numpy._core"):
            known[f"{package}.multiarray", "_reconstruct"] = _empty_array
            known[f"{package}.multiarray", "scalar"] = _scalar
            known[f"{package}.numeric", "_frombuffer"] = _from_buffer
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in it")
        return known[module, name]

    def persistent_load(self, _pid: Any) -> Any:
        raise pickle.UnpicklingError("references to other files are not allowed in it")


class _DataType:
    """Stands for numpy.dtype in a file: integers and bool only."""

    def __init__(self, code: object, _align: object = False, _copy: object = True) -> None:
        if not isinstance(code, str) or not _NUMERIC.fullmatch(code):
            raise pickle.UnpicklingError(f"arrays of type {code!r} are not allowed in it")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(">" if state[1] == ">" else "<")


class _Array:
    """Stands for numpy.ndarray in a file. Attribute: values."""

    values: Any

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, dtype, fortran, raw = state
        self.values = _values(dtype, raw).reshape(shape, order="F" if fortran else "C")


def _values(dtype: object, raw: object) -> np.ndarray[Any, Any]:
    if not isinstance(dtype, _DataType):
        raise pickle.UnpicklingError("an array without a type is not allowed in it")
    if isinstance(raw, str):  # the bytes of Python 2, by the encoding latin1
        raw = raw.encode("latin1")
    if not isinstance(raw, (bytes, bytearray)):
        raise pickle.UnpicklingError("an array of objects is not allowed in it")
    return np.frombuffer(raw, dtype.dtype)


def _empty_array(_kind: object, _shape: object, _code: object) -> _Array:
    return _Array()


def _from_buffer(raw: object, dtype: object, shape: Any, order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", raw))
    return array


def _scalar(dtype: object, raw: object) -> int:
    (value,) = _values(dtype, raw).tolist()
    return int(value)


def _as_bytes(text: str, _encoding: str) -> bytes:
    """_codecs.encode, by which old protocols of pickle write the bytes of Python 3."""
    return text.encode("latin1")
