"""Maps that the nodes of a static graph send to each other in one forward pass.

Each group of nodes writes its maps once, behind those of the groups before it; the input of the next group is
one product of the weights with all of them. In the backward pass, these products accumulate into one
gradient. No sum of states is stored, copied or sliced. Where few edges are in use, the products are computed
edge by edge, and so is the gradient of the weights, unless it is that of all edges.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wirings.blocks import Block, EdgeMatrix


class NodeMapBuffer:
    """The maps sent so far. `receive` (but for the first group) and `send` alternate.

    Custom autograd functions, since autograd's own slices and sums would allocate a gradient of all maps for
    each group; see tests/models/test_node_map_buffer.py.

    Args:
        num_sources: nodes that send in the whole pass.
        by_edges: all blocks are single edges; else none is.
    """

    def __init__(self, num_sources: int, by_edges: bool = False) -> None:
        self.num_sources, self.num_sent = num_sources, 0
        self._traced: list[Tensor] | None = [] if torch.compiler.is_compiling() else None
        self._storage: _Storage = _NodeStorage() if by_edges else _PixelStorage()
        # Links the functions in autograd's graph: a send's backward runs after those of all that received it.
        self._autograd_token: Tensor | None = None

    def send(self, maps: Tensor) -> None:
        """Add the maps of the next group of nodes, (images, nodes, height, width)."""
        if self._traced is not None:
            self._traced.append(maps)
            return
        if self._autograd_token is None:
            self._storage.allocate(maps, self.num_sources)
            self._autograd_token = maps.new_empty(0)
        nodes = slice(self.num_sent, self.num_sent + maps.shape[1])
        self._autograd_token = _Send.apply(self._autograd_token, maps, self._storage, nodes)
        self.num_sent = nodes.stop

    def receive(self, block: Block, first: int = 0) -> Tensor:
        """The input of some nodes from the nodes `first` to the last one that sent.

        Args:
            block: the weights, (targets, sources, 1, 1).
            first: index of the first source.

        Returns:
            (images, targets, height, width), channels last in memory.
        """
        if self._traced is not None:  # torch.compile plans the memory itself
            return F.conv2d(torch.cat(self._traced, dim=1)[:, first:], block.weight)
        nodes, weight = slice(first, self.num_sent), block.differentiable
        if block.edge_weights is None:
            weight = weight.flatten(1)
        flat: Tensor = _Receive.apply(self._autograd_token, weight, block.edges, self._storage, nodes)
        return flat.view(*self._storage.pixels, flat.shape[1]).permute(0, 3, 1, 2)


class BackwardPassId:
    """Detects the start of a new backward pass, where accumulated gradients must be reset."""

    def __init__(self) -> None:
        self._id = -1

    def is_new(self) -> bool:
        """Whether this is the first call within the current pass. For use only in `backward`."""
        # autograd has no public name for it
        previous, self._id = self._id, torch._C._current_graph_task_id()
        return self._id != previous


class _Storage(ABC):
    """Maps as a matrix, and its gradient in the current backward pass."""

    values: Tensor
    pixels: tuple[int, int, int]
    """Images, height, width."""

    def __init__(self) -> None:
        self._pass = BackwardPassId()
        self._gradient: Tensor
        self._filled = 0, 0

    def allocate(self, maps: Tensor, num_sources: int) -> None:
        images, _, height, width = maps.shape
        self.pixels = images, height, width
        self.values = maps.new_empty(self._shape(images * height * width, num_sources))

    def grad_view(self, nodes: slice) -> tuple[Tensor, bool]:
        """(view of the gradient of some nodes, whether it holds a sum to add to; else it is uninitialized).

        Setting all of the gradient to zero first would be one more pass over the memory.
        """
        if self._pass.is_new():
            self._gradient = torch.empty_like(self.values)
            self._filled = nodes.start, nodes.start
        first, last = self._filled
        holds_sum = nodes.start < last and first < nodes.stop
        if holds_sum:
            unfilled = (nodes.start, first), (last, nodes.stop)
        else:
            unfilled = (nodes.stop, first), (last, nodes.start)
        for start, stop in unfilled:
            if start < stop:
                self.view(self._gradient, slice(start, stop)).zero_()
        self._filled = min(first, nodes.start), max(last, nodes.stop)
        return self.view(self._gradient, nodes), holds_sum

    @abstractmethod
    def _shape(self, num_pixels: int, num_sources: int) -> tuple[int, int]:
        """Shape of the matrix."""

    @abstractmethod
    def view(self, matrix: Tensor, nodes: slice) -> Tensor:
        """The nodes' rows or columns of the matrix."""

    def sent_gradient(self, nodes: slice) -> Tensor:
        """The gradient of the nodes' maps, (pixels, nodes)."""
        gradient, holds_sum = self.grad_view(nodes)
        return self._by_pixel(gradient if holds_sum else gradient.zero_())

    @abstractmethod
    def write(self, sent: Tensor, nodes: slice) -> None:
        """Copy the nodes' maps, (pixels, nodes)."""

    @abstractmethod
    def _by_pixel(self, view: Tensor) -> Tensor:
        """(pixels, nodes), contiguous."""

    @abstractmethod
    def product(self, weight: Tensor, edges: EdgeMatrix | None, nodes: slice) -> Tensor:
        """The product of the weights with the nodes' maps, (pixels, targets)."""

    @abstractmethod
    def accumulate_grad(
        self, gradient: Tensor, weight: Tensor, edges: EdgeMatrix | None, nodes: slice
    ) -> Tensor:
        """Add a product's gradient to that of the nodes' maps. Returns the gradient of the weights.

        Args:
            gradient: of the product, (pixels, targets).
            weight: `Block.differentiable` of the product: (targets, sources), or (edges).
            edges, nodes: of the product.
        """


class _PixelStorage(_Storage):
    """A row for each pixel, for products of whole matrices: no map is reordered."""

    def _shape(self, num_pixels: int, num_sources: int) -> tuple[int, int]:
        return num_pixels, num_sources

    def view(self, matrix: Tensor, nodes: slice) -> Tensor:
        return matrix[:, nodes]

    def write(self, sent: Tensor, nodes: slice) -> None:
        self.values[:, nodes] = sent

    def _by_pixel(self, view: Tensor) -> Tensor:
        return view.contiguous()

    def product(self, weight: Tensor, edges: EdgeMatrix | None, nodes: slice) -> Tensor:
        return self.values[:, nodes] @ weight.t()

    def accumulate_grad(
        self, gradient: Tensor, weight: Tensor, edges: EdgeMatrix | None, nodes: slice
    ) -> Tensor:
        total, holds_sum = self.grad_view(nodes)
        torch.addmm(total, gradient, weight, beta=int(holds_sum), out=total)
        return gradient.t() @ self.values[:, nodes]


class _NodeStorage(_Storage):
    """A row for each node: an edge adds a whole row at once, many times faster than pixel by pixel."""

    def _shape(self, num_pixels: int, num_sources: int) -> tuple[int, int]:
        return num_sources, num_pixels

    def view(self, matrix: Tensor, nodes: slice) -> Tensor:
        return matrix[nodes]

    def write(self, sent: Tensor, nodes: slice) -> None:
        self.values[nodes].copy_(sent.t())  # several times faster than from the transposed side

    def _by_pixel(self, view: Tensor) -> Tensor:
        return view.t().contiguous()

    def product(self, weight: Tensor, edges: EdgeMatrix | None, nodes: slice) -> Tensor:
        assert edges is not None
        received = self.values.new_empty(edges.shape[0], self.values.shape[1])
        return edges.product(self.values[nodes], received).t().contiguous()

    def accumulate_grad(
        self, gradient: Tensor, weight: Tensor, edges: EdgeMatrix | None, nodes: slice
    ) -> Tensor:
        assert edges is not None
        by_node = gradient.t().contiguous()
        total, holds_sum = self.grad_view(nodes)
        edges.transposed().product(by_node, total, holds_sum)
        if weight.dim() == 1:
            return edges.products_of_rows(by_node, self.values[nodes])
        return by_node @ self.values[nodes].t()


class _Send(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, maps: Tensor, storage: _Storage, nodes: slice) -> Tensor:
        ctx.storage, ctx.nodes = storage, nodes
        storage.write(maps.permute(0, 2, 3, 1).flatten(0, 2), nodes)
        return token.new_empty(0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        storage = ctx.storage
        gradient = storage.sent_gradient(ctx.nodes)
        maps = gradient.view(*storage.pixels, gradient.shape[1]).permute(0, 3, 1, 2)
        return gradients[0], maps, None, None


class _Receive(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, token: Tensor, weight: Tensor, edges: EdgeMatrix | None, storage: _Storage, nodes: slice
    ) -> Tensor:
        ctx.storage, ctx.edges, ctx.nodes, ctx.weight_dtype = storage, edges, nodes, weight.dtype
        weight = weight.to(storage.values.dtype)
        ctx.save_for_backward(weight)
        return storage.product(weight, edges, nodes)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (weight,), (gradient,) = ctx.saved_tensors, gradients
        weight_gradient = ctx.storage.accumulate_grad(gradient, weight, ctx.edges, ctx.nodes)
        return gradient.new_zeros(0), weight_gradient.to(ctx.weight_dtype), None, None, None
