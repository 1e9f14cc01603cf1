"""Checksum of tensors and nested plain values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def digest(content: Any) -> str:
    """SHA-256 of tensors and plain values, nested in mappings and sequences, in hexadecimal.

    The order of a mapping does not count; a list and a tuple with the same values are equal.

    Raises:
        TypeError: it contains something else, or a tensor whose numbers cannot be read.
    """
    hasher = hashlib.sha256()
    _add(hasher, content)
    return hasher.hexdigest()


def _add(hasher: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        hasher.update(f"tensor {value.dtype} {tuple(value.shape)}".encode())
        try:
            flat = value.detach().cpu().contiguous().reshape(-1)
            hasher.update(flat.view(torch.uint8).numpy().data)
        except RuntimeError as error:  # sparse, without data, or a view larger than the memory
            raise TypeError(
                f"a {value.layout} tensor of {value.dtype} cannot be summed up: {error}"
            ) from error
    elif isinstance(value, Mapping):
        hasher.update(f"mapping {len(value)}".encode())
        for key in sorted(value, key=repr):
            _add(hasher, key)
            _add(hasher, value[key])
    elif isinstance(value, (list, tuple)):
        hasher.update(f"sequence {len(value)}".encode())
        for item in value:
            _add(hasher, item)
    elif value is None or isinstance(value, (bool, int, float, str)):
        text = repr(value).encode()
        hasher.update(f"{type(value).__name__} {len(text)} ".encode() + text)
    else:
        raise TypeError(f"{type(value).__name__} is neither a tensor nor a plain value")
