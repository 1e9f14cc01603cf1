"""Interface of wired networks for profiles, pictures, records, `torch.compile` and fast evaluation.

WiredNetwork lists all attributes and methods, with a default for each. A network may be a subclass of it, or
any module that has some of them: the functions of this module use the defaults for the others.

    class Mine(WiredNetwork):
        def wired_layers(self): ...     # graphs in profiles, pictures and records
        def structure(self): ...        # a compact form: fast evaluation by every engine, and export

See docs/adding.md for an example.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor, nn

from wirings.stages import EdgeWeights, Liveness, Stage, effective_in_cycles, find_liveness

Pool: TypeAlias = Callable[[Tensor], Tensor]
"""Maps (…, S, S) to features (…)."""
Update: TypeAlias = Callable[[Tensor], Tensor]
"""States of all nodes (nodes, images, S, S) to the states after an update, or to their rate of change."""
Run: TypeAlias = Callable[[Update, Tensor], Tensor]
"""From an update and the initial states of all nodes to the final ones."""


@dataclass(frozen=True)
class LayerComplexity:
    """Parameters and multiply-accumulates (MACs) of one layer.

    Attributes:
        name: state-dict name of the layer.
        params: weights in use.
        macs: multiply-accumulates for one image.
        potential: edges that could be in use; 0 for a layer without wiring.
        edges: edges in use; 0 for a layer without wiring.
        effective: edges in use that the forward pass reads and that are on a path from image to logits;
            None: not known.
        live_nodes: source nodes with an effective edge; None: not known.
        macs_per_edge: multiply-accumulates of one edge for one image; 0: not known, or no wiring.
    """

    name: str
    params: int
    macs: int
    potential: int = 0
    edges: int = 0
    effective: int | None = 0
    live_nodes: int | None = 0
    macs_per_edge: int = 0


@dataclass(frozen=True)
class GraphLayer:
    """A graph of a network that describes itself, for profiles, pictures and records.

    Attributes:
        name: state-dict name of its edge rule.
        rule: the edge rule.
        map_size: height and width of a node's map, in pixels.
        passes: number of times that a forward pass runs the graph; in continuous time one evaluation of the
            dynamics is counted, since the number depends on the solver.
        filter_weights: weights of the filter of each source node; 9 for a 3×3 convolution.
    """

    name: str
    rule: EdgeWeights
    map_size: int
    passes: int = 1
    filter_weights: int = 9

    def adjacency(self) -> Tensor:
        """The mask of the edges in use: boolean (targets, sources)."""
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
            macs_per_edge=self.map_size**2 * self.passes,
        )


@dataclass(frozen=True)
class Classifier:
    """Features (images, features) to logits (images, classes): a linear layer, whose weights may be edges.

    Attributes:
        weight: (classes, features), or the edge rule of such a weight.
        bias: (classes), or None.
    """

    weight: Tensor | EdgeWeights
    bias: Tensor | None = None


@dataclass(frozen=True)
class AcyclicStructure:
    """A stem, stages one after the other without anything in between, and a classifier.

    `compact` removes dead nodes and folds constant ones. With a 3×3 convolution
    as stem, strides of 1 and 2, batch norms and `wirings.layout.mean_of_relu` as pooling, the native engine
    runs the whole network.

    Attributes:
        stem: images to maps (images, nodes, S, S) of the nodes that enter the first stage, before its norm.
        stages: in order; the nodes that leave one stage enter the next.
        norm: of the nodes that leave the last stage; None: there is none.
        pool: their maps, after the norm, to features; a node's feature depends on its own map alone.
        classifier: features to logits.
    """

    stem: nn.Module
    stages: Sequence[Stage]
    norm: nn.Module | None
    pool: Pool
    classifier: Classifier

    def liveness(self) -> list[Liveness]:
        """Which nodes and edges of each stage the logits depend on."""
        weight = self.classifier.weight
        read = None if isinstance(weight, Tensor) else weight.in_use().flatten(1).any(0).cpu()
        return find_liveness(self.stages, read)


@dataclass(frozen=True)
class Repeat:
    """Runs a graph in discrete time: the update replaces all states `times` times."""

    times: int

    def __call__(self, update: Update, states: Tensor) -> Tensor:
        for _ in range(self.times):
            states = update(states)
        return states


@dataclass(frozen=True)
class FixedSteps:
    """Runs a graph in continuous time, from t = 0 to 1 by steps of equal size; such a graph can be exported.

    Attributes:
        method: increment of the states in a step: a function of the dynamics (states to dZ/dt), the states
            and the step's size. Euler's method is `lambda dynamics, states, size: size * dynamics(states)`.
        steps: number of steps.
    """

    method: Callable[[Update, Tensor, float], Tensor]
    steps: int

    def __call__(self, dynamics: Update, states: Tensor) -> Tensor:
        for _ in range(self.steps):
            states = states + self.method(dynamics, states, 1 / self.steps)
        return states


@dataclass(frozen=True)
class CyclicStructure:
    """A stem, one graph in which edges may lead anywhere, and a classifier.

    The stem sets the states of the first nodes, all others start at zero. An update gives all nodes new
    states: ReLU, the node's own 3×3 filter, the sum over its edges, the norm. The last nodes are classified.

    Attributes:
        stem: images to maps (images, num_inputs, S, S).
        rule: edges between all nodes, (nodes, nodes).
        filters: (nodes, 1, 3, 3).
        norm: over the maps of all nodes: a batch norm, an instance norm, or None.
        num_inputs: nodes that the stem sets.
        num_outputs: nodes that the classifier reads.
        run: `Repeat` in discrete time. In continuous time `FixedSteps`, or any callable that gets the rate of
            change and the first states and returns the last ones, such as a solver that chooses its steps.
        pool: maps of the last nodes to features; a node's feature depends on its own map alone.
        classifier: features to logits.
    """

    stem: nn.Module
    rule: EdgeWeights
    filters: Tensor
    norm: nn.Module | None
    num_inputs: int
    num_outputs: int
    run: Run
    pool: Pool
    classifier: Classifier

    @property
    def replacements(self) -> int | None:
        """Number of times that all states are replaced; None: in continuous time."""
        return self.run.times if isinstance(self.run, Repeat) else None


@dataclass(frozen=True)
class FoldableNorms:
    """A network without wiring: nothing is removed, but batch norms are folded into convolutions.

    Attributes:
        pairs: state-dict names of a convolution or linear layer, and of its only reader, a batch norm.
    """

    pairs: Sequence[tuple[str, str]]


Structure: TypeAlias = AcyclicStructure | CyclicStructure | FoldableNorms


class WiredNetwork(nn.Module):
    """Base class of wired networks. All methods are optional.

    Attributes:
        image_size: height and width of its images, in pixels; None: not known.
    """

    image_size: int | None = None

    def wired_layers(self) -> list[GraphLayer]:
        """The graphs, in the order of the forward pass: for profiles, pictures and records of the wiring."""
        return []

    def structure(self) -> Structure | None:
        """Description of the forward pass, from which `compact` makes a smaller network; None: there is none.

        It is that of the class that defines it: `compact` does not use it for a subclass that only overrides
        `forward`.
        """
        return None

    def stages(self) -> list[Stage]:
        """The acyclic layers, in order; `wired_layers` begins with them."""
        structure = structure_of(self)
        return list(structure.stages) if isinstance(structure, AcyclicStructure) else []

    def liveness(self) -> list[Liveness]:
        """Which nodes and edges of each stage the logits depend on."""
        structure, own_stages = structure_of(self), stages(self)
        if isinstance(structure, AcyclicStructure):
            return structure.liveness()
        return find_liveness(own_stages) if own_stages else []

    def effective_edges(self) -> Tensor | None:
        """Boolean (targets, sources) of a network's only graph: the edges in use on a path from image to
        logits; None: not known.
        """
        structure = structure_of(self)
        if isinstance(structure, CyclicStructure):
            in_use = structure.rule.in_use().flatten(1)
            sizes = structure.num_inputs, structure.num_outputs
            return effective_in_cycles(in_use, *sizes, structure.replacements)
        live = liveness(self)
        return live[0].edges if len(live) == 1 else None

    def complexity(self) -> list[LayerComplexity] | None:
        """Cost of each layer; None: it is counted in a forward pass.

        If the network accepts images of any size, it has an argument `image_size: int | None = None`.
        """
        return None

    def parts_to_compile(self) -> list[nn.Module]:
        """The modules that `torch.compile` compiles, each as one graph."""
        return [self]

    def waits_for_device(self) -> bool:
        """Whether the forward pass reads values back from a GPU, and so cannot be part of a CUDA graph."""
        return False

    def observations(self) -> dict[str, float]:
        """Numbers of the last forward pass, for metrics and results."""
        return {}


def image_size(model: nn.Module) -> int | None:
    """See WiredNetwork."""
    size: int | None = getattr(model, "image_size", WiredNetwork.image_size)
    return size


def wired_layers(model: nn.Module) -> list[GraphLayer]:
    """See WiredNetwork; of any network, none for a dense one."""
    return list(_method(model, "wired_layers")())


def structure_of(model: nn.Module) -> Structure | None:
    """`structure()` of any network: see WiredNetwork, and `describes_forward`."""
    structure: Structure | None = _method(model, "structure")()
    return structure


def stages(model: nn.Module) -> list[Stage]:
    """See WiredNetwork; of any network."""
    return list(_method(model, "stages")())


def liveness(model: nn.Module) -> list[Liveness]:
    """See WiredNetwork; of any network."""
    return list(_method(model, "liveness")())


def effective_edges(model: nn.Module) -> Tensor | None:
    """See WiredNetwork; of any network."""
    edges: Tensor | None = _method(model, "effective_edges")()
    return edges


def complexity_method(model: nn.Module) -> Callable[..., list[LayerComplexity] | None]:
    """The method `complexity` of any network, whose arguments differ: see WiredNetwork."""
    return _method(model, "complexity")


def parts_to_compile(model: nn.Module) -> list[nn.Module]:
    """See WiredNetwork; of any network."""
    return list(_method(model, "parts_to_compile")())


def waits_for_device(model: nn.Module) -> bool:
    """See WiredNetwork; of any network."""
    return bool(_method(model, "waits_for_device")())


def observations(model: nn.Module) -> dict[str, float]:
    """See WiredNetwork; of any network."""
    return dict(_method(model, "observations")())


def describes_forward(model: nn.Module) -> bool:
    """Whether `structure` is that of the forward pass: no subclass overrides `forward` without it."""
    owners = [vars(model), *map(vars, type(model).__mro__)]
    names = (name for owner in owners for name in ("structure", "forward") if name in owner)
    return next(names, "forward") == "structure"


def num_parameters(module: nn.Module) -> int:
    """All parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def _method(model: nn.Module, name: str) -> Callable[..., Any]:
    """A network's own method, or the default of WiredNetwork."""
    method = getattr(model, name, None)
    if callable(method) and not isinstance(method, nn.Module):  # `stages` is a common name of submodules
        return method  # type: ignore[no-any-return]
    return partial(getattr(WiredNetwork, name), model)
