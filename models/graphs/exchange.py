"""What the nodes of a static graph send and receive in one forward pass.

Each group of nodes writes its maps once, beside those of the groups before it; the next group's input is one
product of the weights with all of them. The gradient goes the same way back: products add it up in place. No
sum of states is kept, copied or sliced.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Exchange:
    """The maps sent so far. Groups take turns: `receive` (but for the first one), then `send`.

    Args:
        num_sources: nodes that will have sent in the end.
    """

    def __init__(self, num_sources: int) -> None:
        self.num_sources, self.num_sent = num_sources, 0
        self._store = _Store()
        # Makes autograd go through a send only after all that received from it.
        self._order: Tensor | None = None

    def send(self, maps: Tensor) -> None:
        """Add the maps of the next group of nodes, (images, nodes, height, width)."""
        if self._order is None:
            images, _, height, width = maps.shape
            self._store.images, self._store.height, self._store.width = images, height, width
            self._store.values = maps.new_empty(images * height * width, self.num_sources)
            self._order = maps.new_empty(0)
        place = slice(self.num_sent, self.num_sent + maps.shape[1])
        self._order = _Send.apply(self._order, maps, self._store, place)
        self.num_sent = place.stop

    def receive(self, weight: Tensor, first: int = 0) -> Tensor:
        """What some nodes receive from the nodes `first` to the last one that sent.

        Args:
            weight: (targets, sources, 1, 1).
            first: number of the first source.

        Returns:
            (images, targets, height, width), channels last in memory.
        """
        place = slice(first, self.num_sent)
        flat: Tensor = _Receive.apply(self._order, weight.flatten(1), self._store, place)
        return self._store.as_maps(flat)


class _Store:
    """Maps as a matrix (pixels of all images, nodes), and their gradient of the backward pass under way."""

    values: Tensor
    images: int
    height: int
    width: int

    def __init__(self) -> None:
        self._gradient: Tensor | None = None
        self._pass = -1

    def gradient(self) -> Tensor:
        """Zero at the start of each backward pass."""
        number = torch._C._current_graph_task_id()
        if self._gradient is None or self._pass != number:
            self._gradient, self._pass = torch.zeros_like(self.values), number
        return self._gradient

    def as_maps(self, flat: Tensor) -> Tensor:
        """(pixels, nodes) to (images, nodes, height, width) of the same memory."""
        return flat.view(self.images, self.height, self.width, flat.shape[1]).permute(0, 3, 1, 2)


class _Send(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, order: Tensor, maps: Tensor, store: _Store, place: slice) -> Tensor:
        ctx.store, ctx.place = store, place
        store.as_maps(store.values)[:, place] = maps
        return order.new_empty(0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        gradient = ctx.store.as_maps(ctx.store.gradient())[:, ctx.place]
        return gradients[0], gradient.contiguous(memory_format=torch.channels_last), None, None


class _Receive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, order: Tensor, weight: Tensor, store: _Store, place: slice) -> Tensor:
        ctx.store, ctx.place, ctx.weight_type = store, place, weight.dtype
        weight = weight.to(store.values.dtype)
        ctx.save_for_backward(weight)
        return store.values[:, place] @ weight.t()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (weight,), (gradient,) = ctx.saved_tensors, gradients
        store, place = ctx.store, ctx.place
        store.gradient()[:, place].addmm_(gradient, weight)
        of_weight = (gradient.t() @ store.values[:, place]).to(ctx.weight_type)
        return gradient.new_zeros(0), of_weight, None, None
