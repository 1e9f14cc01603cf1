"""The tiny classifiers: one graph of 800 nodes, run statically, in discrete time or in continuous time.

Source: Wortsman, Farhadi, Rastegari, "Discovering Neural Wirings", NeurIPS 2019, sections 2.1, 2.3 and 3.1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.graphs.edges import EdgeRule, PotentialEdges, RuleMaker
from models.graphs.nodenorm import NodeNorm
from models.graphs.ode import Dynamics, ODESolve, Solver
from wirings.blocks import Piece
from wirings.layout import conv1x1, to_fast_layout
from wirings.node_map_buffer import NodeMapBuffer
from wirings.stages import Group, Stage
from wirings.structure import (
    AcyclicStructure,
    Classifier,
    CyclicStructure,
    GraphLayer,
    LayerComplexity,
    Repeat,
    Run,
    WiredNetwork,
    num_parameters,
)


class TinyClassifier(WiredNetwork, ABC):
    """Stem and head around a graph: images set the states of the first nodes, the last nodes are classified.

    Args:
        in_channels: channels of an image.
        image_size: height and width of an image, in pixels; a node's map is a quarter of it.
        output_size: classes.
        dim: nodes.
        downsample_dim: nodes that the stem writes to; the others start at zero.
        feature_dim: nodes that the classifier reads.
        layers: groups of nodes of a static graph, steps of a discrete one; a continuous one ignores it.
        setting: `static` draws random wirings in the pattern of acyclic graphs.
        make_rule: makes the edge rule of the graph.

    Raises:
        ValueError: the sizes do not fit together.
    """

    image_size: int
    zeros: Tensor

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        output_size: int,
        dim: int,
        downsample_dim: int,
        feature_dim: int,
        layers: int,
        setting: str,
        make_rule: RuleMaker,
    ) -> None:
        super().__init__()
        if downsample_dim % 2 or downsample_dim + feature_dim > dim:
            raise ValueError(
                "downsample_dim must be even, and downsample_dim + feature_dim at most dim; "
                f"got downsample_dim {downsample_dim}, feature_dim {feature_dim}, dim {dim}"
            )
        self.map_size = (image_size + 3) // 4
        if self.map_size < 4:
            raise ValueError(f"image_size must be at least 13 pixels, got {image_size}")
        self.dim, self.downsample_dim, self.feature_dim = dim, downsample_dim, feature_dim
        self.image_size, self.layers = image_size, layers
        half = downsample_dim // 2
        self.downsample = nn.Sequential(
            nn.Conv2d(in_channels, half, 3, stride=2, padding=1),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, half, 3, stride=2, padding=1, groups=half),
            nn.Conv2d(half, downsample_dim, 1),
            nn.BatchNorm2d(downsample_dim),
        )
        self.register_buffer("zeros", torch.zeros(1, dim - downsample_dim, self.map_size, self.map_size))
        self.fc = nn.Linear(feature_dim, output_size)
        self._add_graph(make_rule, acyclic=setting == "static")

    @abstractmethod
    def _add_graph(self, make_rule: RuleMaker, acyclic: bool) -> None:
        """Make the graph, its norms and its filters."""

    @abstractmethod
    def wired_layers(self) -> list[GraphLayer]:
        """The graphs of this network."""

    def complexity(self) -> list[LayerComplexity]:
        """Cost of stem, graph and classifier, counted as in the paper: the nodes' norms are left out."""
        first = ((self.image_size + 1) // 2) ** 2
        pixels = {"0": first, "3": self.map_size**2, "4": self.map_size**2}
        stem = sum(
            pixels[name] * module.weight.numel()
            for name, module in self.downsample.named_children()
            if isinstance(module, nn.Conv2d)
        )
        return [
            LayerComplexity("downsample", num_parameters(self.downsample), stem),
            *(layer.complexity(self.effective_edges()) for layer in self.wired_layers()),
            LayerComplexity("fc", num_parameters(self.fc), self.fc.weight.numel()),
        ]

    def start(self, images: Tensor) -> Tensor:
        """Images to the initial states of all nodes, (images, dim, s, s)."""
        stem = self.downsample(images)
        states = torch.cat([stem, self.zeros.expand(len(stem), -1, -1, -1)], dim=1)
        return to_fast_layout(states)

    def classify(self, states: Tensor) -> Tensor:
        """The centre of the output nodes' maps, averaged, to logits, (images, output_size)."""
        logits: Tensor = self.fc(centre(states[:, -self.feature_dim :]))
        return logits

    def _cyclic(self, rule: EdgeRule, conv: nn.Conv2d, norm: NodeNorm, run: Run) -> CyclicStructure:
        """The structure of a graph with cycles."""
        sizes = self.downsample_dim, self.feature_dim
        classifier = Classifier(self.fc.weight, self.fc.bias)
        return CyclicStructure(
            self.downsample, rule, conv.weight, norm, *sizes, run=run, pool=centre, classifier=classifier
        )


def centre(maps: Tensor) -> Tensor:
    """Mean of the four pixels above and to the left of the centre, (…, s, s) to (…)."""
    middle = maps.shape[-1] // 2
    return maps[..., middle - 2 : middle, middle - 2 : middle].mean((-2, -1))


class StaticNeuralGraph(TinyClassifier):
    """An acyclic graph: the nodes are visited once, group by group, and edges lead to later groups only.

    The first group holds the nodes of the stem; the other nodes are divided evenly among `layers` − 1 groups.
    The exception, as published: the output nodes, which are in the last group, also receive from that group.
    """

    def _add_graph(self, make_rule: RuleMaker, acyclic: bool) -> None:
        self.groups = self._divide()
        self.norm = nn.ModuleList(NodeNorm(end - start) for start, end in self.groups)
        self.conv = nn.Conv2d(self.dim, self.dim, 3, padding=1, groups=self.dim, bias=False)
        readable_mask = torch.zeros(self.dim, self.dim, dtype=torch.bool)
        for piece in self._pieces():
            readable_mask[piece] = True
        self.graph = make_rule(
            PotentialEdges(self.dim, self.dim, self.downsample_dim, self.feature_dim, acyclic, readable_mask)
        )

    def _divide(self) -> list[tuple[int, int]]:
        """(first node, first node of the next group) of each group."""
        num_groups, num_nodes = self.layers - 1, self.dim - self.downsample_dim
        if num_groups < 1 or num_nodes % num_groups or num_nodes // num_groups < self.feature_dim:
            raise ValueError(
                "layers must be at least 2 and divide dim − downsample_dim into groups of at least "
                f"feature_dim nodes; got {num_nodes} nodes for {num_groups} groups and feature_dim "
                f"{self.feature_dim}"
            )
        size = num_nodes // num_groups
        starts = range(self.downsample_dim, self.dim, size)
        return [(0, self.downsample_dim), *((start, start + size) for start in starts)]

    def forward(self, images: Tensor) -> Tensor:
        *hidden, last = self.graph.blocks(self._pieces())
        buffer = NodeMapBuffer(self.dim, last.edges is not None)
        states = to_fast_layout(self.downsample(images))
        for number, (start, end) in enumerate(self.groups):
            if number > 0:
                states = buffer.receive(hidden[number - 1])
            sources = F.relu_(self.norm[number](states))
            buffer.send(F.conv2d(sources, self.conv.weight[start:end], padding=1, groups=end - start))
        outputs = states[:, -self.feature_dim :] + buffer.receive(last, first=self.groups[-1][0])
        return self.classify(outputs)

    def _pieces(self) -> list[Piece]:
        """The edges of each group but the first from all before it, then those of the outputs."""
        pieces = [(slice(start, end), slice(0, start)) for start, end in self.groups[1:]]
        outputs = slice(self.dim - self.feature_dim, self.dim)
        return [*pieces, (outputs, slice(*self.groups[-1]))]

    def wired_layers(self) -> list[GraphLayer]:
        return [GraphLayer("graph", self.graph, self.map_size)]

    def structure(self) -> AcyclicStructure:
        """The graph as one stage between stem and classifier."""
        classifier = Classifier(self.fc.weight, self.fc.bias)
        return AcyclicStructure(self.downsample, [self.stage()], None, centre, classifier)

    def stage(self) -> Stage:
        """The graph as one stage; its outputs are nodes of the last group."""
        groups = tuple(
            Group(
                columns=slice(start, end),
                rows=slice(start, end) if number else None,
                norm=self.norm[number],
                filters=self.conv.weight[start:end],
            )
            for number, (start, end) in enumerate(self.groups)
        )
        return Stage("graph", self.graph, groups, slice(self.dim - self.feature_dim, self.dim))


class DiscreteTimeNeuralGraph(TinyClassifier):
    """A graph with cycles: all nodes are updated together, `layers` times, with the same weights."""

    def _add_graph(self, make_rule: RuleMaker, acyclic: bool) -> None:
        self.conv = nn.Conv2d(self.dim, self.dim, 3, padding=1, groups=self.dim, bias=False)
        self.graph = make_rule(
            PotentialEdges(self.dim, self.dim, self.downsample_dim, self.feature_dim, acyclic)
        )
        self.norm = NodeNorm(self.dim)

    def forward(self, images: Tensor) -> Tensor:
        weight = self.graph()
        all_nodes, outputs = slice(0, self.dim), slice(self.dim - self.feature_dim, self.dim)
        # Nodes whose state is zero send nothing, and of the last step only the outputs are read.
        states, sending = to_fast_layout(self.downsample(images)), slice(0, self.downsample_dim)
        for step in range(1, self.layers + 1):
            receiving = outputs if step == self.layers else all_nodes
            filters = self.conv.weight[sending]
            sources = F.conv2d(F.relu(states), filters, padding=1, groups=len(filters))
            states = self.norm.normalize(conv1x1(sources, weight[receiving, sending]), receiving)
            sending = all_nodes
        return self.classify(states)

    def wired_layers(self) -> list[GraphLayer]:
        return [GraphLayer("graph", self.graph, self.map_size, passes=self.layers)]

    def structure(self) -> CyclicStructure:
        """The graph, whose states are replaced `layers` times."""
        return self._cyclic(self.graph, self.conv, self.norm, Repeat(self.layers))


class ContinuousTimeNeuralGraph(TinyClassifier):
    """A graph in continuous time: the states follow an ordinary differential equation from t = 0 to 1.

    Args:
        ode_solver, ode_rtol, ode_atol, ode_steps, ode_adjoint: see models.graphs.ode.Solver.
        The others are those of TinyClassifier.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        output_size: int,
        dim: int,
        downsample_dim: int,
        feature_dim: int,
        layers: int,
        setting: str,
        make_rule: RuleMaker,
        ode_solver: str = "dopri5",
        ode_rtol: float = 1e-3,
        ode_atol: float = 1e-3,
        ode_steps: int | None = None,
        ode_adjoint: bool = False,
    ) -> None:
        self._solver = Solver(ode_solver, ode_rtol, ode_atol, ode_steps or Solver.steps, ode_adjoint)
        super().__init__(
            in_channels, image_size, output_size, dim, downsample_dim, feature_dim, layers, setting, make_rule
        )

    def _add_graph(self, make_rule: RuleMaker, acyclic: bool) -> None:
        graph = make_rule(PotentialEdges(self.dim, self.dim, self.downsample_dim, self.feature_dim, acyclic))
        self.odesolve = ODESolve(Dynamics(self.dim, graph), self._solver)

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.odesolve(self.start(images)))

    def wired_layers(self) -> list[GraphLayer]:
        return [GraphLayer("odesolve.odefunc.graph", self.odesolve.odefunc.graph, self.map_size)]

    def structure(self) -> CyclicStructure:
        """The graph with its solver."""
        dynamics, solver = self.odesolve.odefunc, self.odesolve.solver
        return self._cyclic(dynamics.graph, dynamics.conv, dynamics.norm, solver.fixed_steps() or solver)

    def parts_to_compile(self) -> list[nn.Module]:
        """All modules but the solver, whose steps depend on the states."""
        return [self.downsample, self.odesolve.odefunc]

    def waits_for_device(self) -> bool:
        """True for a solver that chooses its steps by the states."""
        return self.odesolve.solver.waits_for_device

    def observations(self) -> dict[str, float]:
        """Number of evaluations of the dynamics in the last forward and backward pass."""
        return {"ode_evaluations": self.odesolve.num_evaluations}
