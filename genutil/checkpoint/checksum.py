"""A short number that stands for a whole content: equal contents have equal ones, damaged ones do not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def digest(content: Any) -> str:
    """SHA-256 of tensors and plain values, nested in mappings and sequences, in hexadecimal.

    Mappings count without their order; a list and a tuple of the same values are the same.

    Raises:
        TypeError: something in it is no plain value, and no tensor whose numbers can be read.
    """
    sum_ = hashlib.sha256()
    _add(sum_, content)
    return sum_.hexdigest()


def _add(sum_: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        sum_.update(f"tensor {value.dtype} {tuple(value.shape)}".encode())
        try:
            flat = value.detach().cpu().contiguous().reshape(-1)
            sum_.update(flat.view(torch.uint8).numpy().data)
        except RuntimeError as error:  # sparse, without data, or a view larger than the memory
            raise TypeError(
                f"a {value.layout} tensor of {value.dtype} cannot be summed up: {error}"
            ) from error
    elif isinstance(value, Mapping):
        sum_.update(f"mapping {len(value)}".encode())
        for key in sorted(value, key=repr):
            _add(sum_, key)
            _add(sum_, value[key])
    elif isinstance(value, (list, tuple)):
        sum_.update(f"sequence {len(value)}".encode())
        for item in value:
            _add(sum_, item)
    elif value is None or isinstance(value, (bool, int, float, str)):
        text = repr(value).encode()
        sum_.update(f"{type(value).__name__} {len(text)} ".encode() + text)
    else:
        raise TypeError(f"{type(value).__name__} is neither a tensor nor a plain value")
