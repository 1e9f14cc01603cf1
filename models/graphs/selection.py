"""In evaluation, a selection of edges is made once for as long as the weights stay the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

_Selection = TypeVar("_Selection")


class SelectionCache(Generic[_Selection]):
    """Remembers a selection until the weights change. Never needed for correctness, never saved or copied.

    A change shows in torch's version counter. Some changes pass it by (`weight.data`, fused optimizers), so
    where the counter stands still, the sums of the weights' bits by row and by column are compared, which
    takes two reads at memory speed. In training, where no selection serves twice, it would be work in vain.
    """

    def __init__(self) -> None:
        self._key: list[tuple[Any, ...]] = []
        self._sums: list[Tensor] = []
        self._selection: _Selection | None = None

    def choose(self, training: bool, select: Callable[[], _Selection], *weights: Tensor) -> _Selection:
        """`select()`; in evaluation what it gave last time, if the weights that decide it are the same."""
        if training or torch.compiler.is_compiling():
            return select()
        return self.of(select, *weights)

    def of(self, select: Callable[[], _Selection], *weights: Tensor) -> _Selection:
        """`select()`, or what it gave last time where `weights`, which decide it, are the same as then."""
        detached = [weight.detach() for weight in weights]
        key = [_identity(weight) for weight in detached]
        sums = [part for weight in detached for part in _sums(weight)]
        same = key == self._key and all(map(torch.equal, sums, self._sums))
        if not same or self._selection is None:
            with torch.no_grad():
                self._selection = select()
            self._key, self._sums = key, sums
        return self._selection

    def __deepcopy__(self, memo: dict[int, Any]) -> SelectionCache[_Selection]:
        return SelectionCache()

    def __reduce__(self) -> tuple[type[SelectionCache[_Selection]], tuple[()]]:
        return SelectionCache, ()


def _identity(weight: Tensor) -> tuple[Any, ...]:
    version = None if weight.is_inference() else weight._version
    return version, weight.data_ptr(), weight.device, weight.dtype, weight.shape


def _sums(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of the bits as integers, by row and by column; the widest integer that fits is fastest."""
    rows = weight.flatten(1)
    num_bytes = rows.shape[1] * rows.element_size()
    for integer in (torch.int64, torch.int32, torch.int16):
        if num_bytes % integer.itemsize == 0:
            bits = rows.contiguous().view(integer)
            return bits.sum(dim=1), bits.sum(dim=0)
    raise TypeError(f"edge weights of type {weight.dtype} are not supported")
