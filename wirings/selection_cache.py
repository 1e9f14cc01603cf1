"""Cache of a selection in evaluation, valid while the weights are unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from wirings.selection import EdgeSelection


class SelectionCache:
    """Caches a selection until the weights change. It does not affect results, and is not saved or copied.

    Most changes increment torch's version counter. Some do not (`weight.data`, fused optimizers), so if the
    counter is unchanged, sums of the weights' bits by row and by column are compared, which reads the weights
    twice. In training the weights change every step, so nothing is cached.
    """

    def __init__(self) -> None:
        self._key: list[tuple[Any, ...]] = []
        self._sums: list[Tensor] = []
        self._selection: EdgeSelection | None = None

    def get(self, training: bool, select: Callable[[], EdgeSelection], *weights: Tensor) -> EdgeSelection:
        """`select()`; in evaluation the last result, if the weights it depends on are unchanged."""
        if training or torch.compiler.is_compiling():
            return select()
        return self.cached(select, *weights)

    def cached(
        self, select: Callable[[], EdgeSelection], *weights: Tensor, by_counter: bool = False
    ) -> EdgeSelection:
        """`select()`, or the last result if `weights`, on which it depends, are unchanged.

        Args:
            select: makes the selection.
            weights: tensors on which it depends.
            by_counter: compare version counters only, not the bits.
        """
        detached = [weight.detach() for weight in weights]
        key = [_identity(weight) for weight in detached]
        if by_counter and key == self._key and self._selection is not None:
            return self._selection
        sums = [total for weight in detached for total in _sums(weight)]
        same = key == self._key and all(map(torch.equal, sums, self._sums))
        if not same or self._selection is None:
            with torch.no_grad():
                self._selection = select()
            self._key, self._sums = key, sums
        return self._selection

    def __deepcopy__(self, memo: dict[int, Any]) -> SelectionCache:
        return SelectionCache()

    def __reduce__(self) -> tuple[type[SelectionCache], tuple[()]]:
        return SelectionCache, ()


def _identity(weight: Tensor) -> tuple[Any, ...]:
    version = None if weight.is_inference() else weight._version
    return version, weight.data_ptr(), weight.device, weight.dtype, weight.shape


def _sums(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of the bits as integers, by row and by column, with the widest integer that divides a row."""
    rows = weight.flatten(1) if weight.dim() > 1 else weight.reshape(1, -1)
    num_bytes = rows.shape[1] * rows.element_size()
    for integer in (torch.int64, torch.int32, torch.int16, torch.int8):
        if num_bytes % integer.itemsize == 0 and rows.element_size() <= integer.itemsize:
            bits = rows.contiguous().view(integer)
            return bits.sum(dim=1), bits.sum(dim=0)
    raise TypeError(f"edge weights of type {weight.dtype} are not supported")
