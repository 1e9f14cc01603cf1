"""What a network costs, counted from its wiring without a forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from models.graphs.edges import EdgeRule


@dataclass(frozen=True)
class LayerComplexity:
    """Parameters and multiply-accumulates (MACs) of one layer.

    Attributes:
        name: state-dict name of the layer.
        params: weights in use.
        macs: multiply-accumulates for one image.
        potential: edges that could be in use; 0 for a layer without wiring.
        edges: edges in use; 0 for a layer without wiring.
        effective: those of them that the forward pass reads and that lie on a path from image to logits.
        live_nodes: source nodes with an effective edge.
    """

    name: str
    params: int
    macs: int
    potential: int = 0
    edges: int = 0
    effective: int = 0
    live_nodes: int = 0


@dataclass(frozen=True)
class WiredLayer:
    """One graph of a network, as profiles and pictures see it.

    Attributes:
        name: state-dict name of its edge rule.
        rule: the edge rule.
        map_size: height and width of a node's map, in pixels.
        passes: how often a forward pass runs the graph; for a graph in continuous time one evaluation of its
            dynamics is counted, since the solver decides how many there are.
        filter_weights: weights of the filter that each source node has for itself; 9 for a 3×3 convolution.
    """

    name: str
    rule: EdgeRule
    map_size: int
    passes: int = 1
    filter_weights: int = 9

    def adjacency(self) -> Tensor:
        """Boolean (targets, sources): the edges in use."""
        return self.rule.in_use().flatten(1)

    def complexity(self, effective: Tensor | None = None) -> LayerComplexity:
        """Edges in use, and the filter of each node with an outgoing edge.

        Args:
            effective: boolean (targets, sources), the edges on a path from image to logits; None: all in use.
        """
        in_use = self.adjacency()
        edges = int(in_use.sum())
        effective = in_use if effective is None else effective
        params = edges + self.filter_weights * int(in_use.any(dim=0).sum())
        return LayerComplexity(
            name=self.name,
            params=params,
            macs=params * self.map_size**2 * self.passes,
            potential=in_use.numel(),
            edges=edges,
            effective=int(effective.sum()),
            live_nodes=int(effective.any(dim=0).sum()),
        )


def wired_layers(model: nn.Module) -> list[WiredLayer]:
    """The graphs of a network, in the order of its forward pass; none for a dense one."""
    own: Callable[[], list[WiredLayer]] | None = getattr(model, "wired_layers", None)
    return own() if own is not None else []


def num_parameters(module: nn.Module) -> int:
    """All parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())
