"""Inert replacements for the pickled objects in published checkpoint files; nothing is executed.

The files were written by torch 1.0. They contain tensors, `train.ScalarMeter` objects (curves of a
training), and numpy scalars and arrays under the names of numpy 1.x or 2.x. Files of timm and of the training
scripts of torchvision contain their options as an `argparse.Namespace`. torch's restricted reader refuses
such names; here each gets a stub that only keeps plain values.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

_NUMERIC = re.compile(r"b1|[iu][1248]|f[248]")


class ScalarMeter:
    """A curve of a published training. Attributes: name, steps, values."""

    name: str = ""
    steps: Any = ()
    values: Any = ()


class ProgramOptions:
    """Options of the program that wrote a file. Attributes: their values."""


class _DataType:
    """A numpy dtype; only plain numbers are accepted."""

    def __init__(self, code: object, _align: object = False, _copy: object = True) -> None:
        if not isinstance(code, str) or not _NUMERIC.fullmatch(code):
            raise ValueError(f"numpy values of type {code!r} are not read")
        self._dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._dtype = self._dtype.newbyteorder(">" if state[1] == ">" else "<")

    def values(self, raw: object) -> np.ndarray[Any, Any]:
        """The numbers that these bytes are."""
        if not isinstance(raw, bytes):
            raise ValueError("numpy values other than bytes are not read")
        return np.frombuffer(raw, self._dtype)


class _Array:
    """A numpy array; becomes a list of numbers under `values`, in the order of memory."""

    values: Any = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, self.shape, dtype, _fortran, raw = state
        self.values = _known(dtype).values(raw).tolist()


def _scalar(dtype: object, raw: object) -> bool | int | float:
    (value,) = _known(dtype).values(raw).tolist()
    return value  # type: ignore[no-any-return]


def _empty_array(_kind: object, _shape: object, _code: object) -> _Array:
    return _Array()


def _known(dtype: object) -> _DataType:
    if not isinstance(dtype, _DataType):
        raise ValueError("a numpy value without a type")
    return dtype


def stubs_for_published_files() -> AbstractContextManager[None]:
    """Context manager: `torch.load(weights_only=True)` also reads published files."""
    stubs: list[Any] = [
        (ScalarMeter, "train.ScalarMeter"),
        (ProgramOptions, "argparse.Namespace"),
        (_DataType, "numpy.dtype"),
        (_Array, "numpy.ndarray"),
    ]
    for package in ("numpy.core", "numpy._core"):
        stubs.append((_scalar, f"{package}.multiarray.scalar"))
        stubs.append((_empty_array, f"{package}.multiarray._reconstruct"))
    return torch.serialization.safe_globals(stubs)
