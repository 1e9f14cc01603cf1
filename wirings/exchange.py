"""What the nodes of a static graph send and receive in one forward pass.

Each group of nodes writes its maps once, beside those of the groups before it; the next group's input is one
product of the weights with all of them. The gradient goes the same way back: products add it up in place. No
sum of states is kept, copied or sliced. Where few edges are in use, the products are taken edge by edge; only
the gradient of the weights is always that of all edges.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wirings.blocks import Block, EdgeMatrix


class Exchange:
    """The maps sent so far. Groups take turns: `receive` (but for the first one), then `send`.

    Args:
        num_sources: nodes that will have sent in the end.
        by_edges: the blocks received with are all given as single edges; else none is.
    """

    def __init__(self, num_sources: int, by_edges: bool = False) -> None:
        self.num_sources, self.num_sent = num_sources, 0
        self._traced: list[Tensor] | None = [] if torch.compiler.is_compiling() else None
        self._store: _Store = _ByNode() if by_edges else _ByPixel()
        # Makes autograd go through a send only after all that received from it.
        self._order: Tensor | None = None

    def send(self, maps: Tensor) -> None:
        """Add the maps of the next group of nodes, (images, nodes, height, width)."""
        if self._traced is not None:
            self._traced.append(maps)
            return
        if self._order is None:
            self._store.make_room(maps, self.num_sources)
            self._order = maps.new_empty(0)
        place = slice(self.num_sent, self.num_sent + maps.shape[1])
        self._order = _Send.apply(self._order, maps, self._store, place)
        self.num_sent = place.stop

    def receive(self, block: Block, first: int = 0) -> Tensor:
        """What some nodes receive from the nodes `first` to the last one that sent.

        Args:
            block: the weights, (targets, sources, 1, 1).
            first: number of the first source.

        Returns:
            (images, targets, height, width), channels last in memory.
        """
        if self._traced is not None:  # what a compiler can read; it plans the memory itself
            return F.conv2d(torch.cat(self._traced, dim=1)[:, first:], block.weight)
        place = slice(first, self.num_sent)
        flat: Tensor = _Receive.apply(self._order, block.weight.flatten(1), block.edges, self._store, place)
        return flat.view(*self._store.pixels, flat.shape[1]).permute(0, 3, 1, 2)


class BackwardPass:
    """Detects that a new backward pass has begun, so that sums of gradients start from zero."""

    def __init__(self) -> None:
        self._number = -1

    def has_begun(self) -> bool:
        """Whether this is the first call within the current pass. Only to be called by a `backward`."""
        # autograd has no public name for it
        before, self._number = self._number, torch._C._current_graph_task_id()
        return self._number != before


class _Store(ABC):
    """Maps as a matrix, and its gradient of the backward pass under way."""

    values: Tensor
    pixels: tuple[int, int, int]
    """Images, height, width."""

    def __init__(self) -> None:
        self._pass = BackwardPass()
        self._gradient: Tensor
        self._filled = 0, 0

    def make_room(self, maps: Tensor, num_sources: int) -> None:
        images, _, height, width = maps.shape
        self.pixels = images, height, width
        self.values = maps.new_empty(self._shape(images * height * width, num_sources))

    def open(self, place: slice) -> tuple[Tensor, bool]:
        """(the gradient of a place, whether it holds a sum to add to; if not, it must be written whole).

        Filling all of it with zeros first would be one more pass over the memory.
        """
        if self._pass.has_begun():
            self._gradient = torch.empty_like(self.values)
            self._filled = place.start, place.start
        first, last = self._filled
        holds_sum = place.start < last and first < place.stop
        if holds_sum:
            unfilled = (place.start, first), (last, place.stop)
        else:
            unfilled = (place.stop, first), (last, place.start)
        for start, stop in unfilled:
            if start < stop:
                self.part(self._gradient, slice(start, stop)).zero_()
        self._filled = min(first, place.start), max(last, place.stop)
        return self.part(self._gradient, place), holds_sum

    @abstractmethod
    def _shape(self, num_pixels: int, num_sources: int) -> tuple[int, int]:
        """Of the matrix."""

    @abstractmethod
    def part(self, matrix: Tensor, place: slice) -> Tensor:
        """The nodes of a place, in the order of the matrix."""

    def sent_gradient(self, place: slice) -> Tensor:
        """The gradient of the maps of a place, (pixels, nodes)."""
        gradient, holds_sum = self.open(place)
        return self._by_pixel(gradient if holds_sum else gradient.zero_())

    @abstractmethod
    def write(self, sent: Tensor, place: slice) -> None:
        """Take over the maps of the nodes of a place, (pixels, nodes)."""

    @abstractmethod
    def _by_pixel(self, part: Tensor) -> Tensor:
        """(pixels, nodes), contiguous."""

    @abstractmethod
    def product(self, weight: Tensor, edges: EdgeMatrix | None, place: slice) -> Tensor:
        """What is received from a place, (pixels, targets)."""

    @abstractmethod
    def back(self, gradient: Tensor, weight: Tensor, edges: EdgeMatrix | None, place: slice) -> Tensor:
        """Add to the gradient of a place, from that of what was received; returns the weight's."""


class _ByPixel(_Store):
    """A row for each pixel, for products of whole matrices: no map is ever reordered."""

    def _shape(self, num_pixels: int, num_sources: int) -> tuple[int, int]:
        return num_pixels, num_sources

    def part(self, matrix: Tensor, place: slice) -> Tensor:
        return matrix[:, place]

    def write(self, sent: Tensor, place: slice) -> None:
        self.values[:, place] = sent

    def _by_pixel(self, part: Tensor) -> Tensor:
        return part.contiguous()

    def product(self, weight: Tensor, edges: EdgeMatrix | None, place: slice) -> Tensor:
        return self.values[:, place] @ weight.t()

    def back(self, gradient: Tensor, weight: Tensor, edges: EdgeMatrix | None, place: slice) -> Tensor:
        total, holds_sum = self.open(place)
        torch.addmm(total, gradient, weight, beta=int(holds_sum), out=total)
        return gradient.t() @ self.values[:, place]


class _ByNode(_Store):
    """A row for each node: an edge adds a whole row at once, many times faster than pixel by pixel."""

    def _shape(self, num_pixels: int, num_sources: int) -> tuple[int, int]:
        return num_sources, num_pixels

    def part(self, matrix: Tensor, place: slice) -> Tensor:
        return matrix[place]

    def write(self, sent: Tensor, place: slice) -> None:
        self.values[place].copy_(sent.t())  # several times faster than from the transposed side

    def _by_pixel(self, part: Tensor) -> Tensor:
        return part.t().contiguous()

    def product(self, weight: Tensor, edges: EdgeMatrix | None, place: slice) -> Tensor:
        assert edges is not None
        received = self.values.new_empty(edges.shape[0], self.values.shape[1])
        return edges.product(self.values[place], received).t().contiguous()

    def back(self, gradient: Tensor, weight: Tensor, edges: EdgeMatrix | None, place: slice) -> Tensor:
        assert edges is not None
        by_node = gradient.t().contiguous()
        total, holds_sum = self.open(place)
        edges.transposed().product(by_node, total, holds_sum)
        return by_node @ self.values[place].t()


class _Send(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, order: Tensor, maps: Tensor, store: _Store, place: slice) -> Tensor:
        ctx.store, ctx.place = store, place
        store.write(maps.permute(0, 2, 3, 1).flatten(0, 2), place)
        return order.new_empty(0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        store, place = ctx.store, ctx.place
        gradient = store.sent_gradient(place)
        maps = gradient.view(*store.pixels, gradient.shape[1]).permute(0, 3, 1, 2)
        return gradients[0], maps, None, None


class _Receive(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, order: Tensor, weight: Tensor, edges: EdgeMatrix | None, store: _Store, place: slice
    ) -> Tensor:
        ctx.store, ctx.edges, ctx.place, ctx.weight_type = store, edges, place, weight.dtype
        weight = weight.to(store.values.dtype)
        ctx.save_for_backward(weight)
        return store.product(weight, edges, place)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (weight,), (gradient,) = ctx.saved_tensors, gradients
        of_weight = ctx.store.back(gradient, weight, ctx.edges, ctx.place).to(ctx.weight_type)
        return gradient.new_zeros(0), of_weight, None, None, None
