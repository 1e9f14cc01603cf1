"""A selection of edges is made once for as long as the weights stay the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class SelectionCache:
    """Remembers a selection until the weights change. Never needed for correctness, never saved or copied.

    A change shows in torch's version counter. Some changes pass it by (`weight.data`, fused
    optimizers), so where the counter stands still, the sums of the weights' bits by row are compared, which
    takes one read at memory speed.
    """

    def __init__(self) -> None:
        self._key: tuple[Any, ...] | None = None
        self._row_sums: Tensor | None = None
        self._mask: Tensor | None = None

    def of(self, weight: Tensor, select: Callable[[Tensor], Tensor]) -> Tensor:
        """`select(weight)`, from memory where the weights are those of the last call."""
        weight = weight.detach()
        version = None if weight.is_inference() else weight._version
        key = (version, weight.data_ptr(), weight.device, weight.dtype, weight.shape)
        sums = _row_sums(weight)
        same = key == self._key and self._row_sums is not None and torch.equal(sums, self._row_sums)
        if not same or self._mask is None:
            self._mask = select(weight)
            self._key, self._row_sums = key, sums
        return self._mask

    def __deepcopy__(self, memo: dict[int, Any]) -> SelectionCache:
        return SelectionCache()

    def __reduce__(self) -> tuple[type[SelectionCache], tuple[()]]:
        return SelectionCache, ()


def _row_sums(weight: Tensor) -> Tensor:
    """Sum of each row's bits as integers; the widest integer that divides a row is the fastest to add."""
    rows = weight.flatten(1)
    num_bytes = rows.shape[1] * rows.element_size()
    for integer in (torch.int64, torch.int32, torch.int16):
        if num_bytes % integer.itemsize == 0:
            return rows.contiguous().view(integer).sum(dim=1)
    raise TypeError(f"edge weights of type {weight.dtype} are not supported")
