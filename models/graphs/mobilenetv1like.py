"""MobileNetV1 as a graph: the 1×1 convolutions of a stage are one weight, with edges between all its groups.

Source: Wortsman, Farhadi, Rastegari, "Discovering Neural Wirings", NeurIPS 2019, section 3.2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.graphs.edges import EdgeRule, PotentialEdges, RuleMaker
from wirings.blocks import Piece
from wirings.budgets import mobilenet_stage
from wirings.layout import conv_out_size, mean_of_relu, to_fast_layout
from wirings.node_map_buffer import NodeMapBuffer
from wirings.stages import Group, Stage
from wirings.structure import AcyclicStructure, Classifier, GraphLayer, LayerComplexity, WiredNetwork

STAGES = ((32, 64, 1, 1), (64, 128, 2, 2), (128, 256, 2, 2), (256, 512, 2, 6), (512, 1024, 2, 2))
"""(nodes that enter, nodes that leave, stride, depth) of each stage: see WiredStage."""


class WiredStage(nn.Module):
    """One stage: the nodes that enter, `depth` − 1 groups of hidden nodes, and the nodes that leave. Edges
    lead from each group to all later ones.

    Args:
        inputs, outputs: numbers of nodes that enter and leave; a group of hidden nodes has `outputs` nodes.
        stride: of the filters of the entering nodes.
        depth: number of 1×1 convolutions of the stage in the dense MobileNetV1.
        acyclic: random wirings are drawn in the pattern of acyclic graphs.
        prune_rate: of the network; the stage has as many edges in use as the dense stage has weights at a
            width of 1 − prune_rate.
        make_rule: makes the edge rule.
    """

    graph: EdgeRule

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        depth: int,
        acyclic: bool,
        prune_rate: float,
        make_rule: RuleMaker,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.depth, self.stride = inputs, outputs, depth, stride
        hidden = outputs * (depth - 1)
        self.downsample = nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, stride=stride, padding=1, groups=inputs, bias=False)
        )
        if hidden:
            self.conv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.norm = nn.ModuleList(nn.BatchNorm2d(width) for width in [inputs] + [outputs] * (depth - 1))
        rows, columns = outputs * depth, inputs + hidden
        num_edges = mobilenet_stage(inputs, outputs, depth, width=1 - prune_rate)
        readable_mask = torch.zeros(rows, columns, dtype=torch.bool)
        for piece in self._pieces():
            readable_mask[piece] = True
        potential = PotentialEdges(rows, columns, inputs, outputs, acyclic, readable_mask)
        self.graph = make_rule(potential, prune_rate=1 - num_edges / (rows * columns))

    def _sender_columns(self, group: int) -> slice:
        """Columns of a group that sends: 0 is that of the entering nodes, the others are hidden."""
        start = self.inputs + (group - 1) * self.outputs
        return slice(0, self.inputs) if group == 0 else slice(start, start + self.outputs)

    def _target_rows(self, group: int) -> slice:
        """Rows of a group that receives: hidden nodes from 1 on, `depth` is that of the nodes that leave."""
        return slice((group - 1) * self.outputs, group * self.outputs)

    def _pieces(self) -> list[Piece]:
        """The edges of each group that receives, from all groups before it."""
        return [
            (self._target_rows(group), slice(0, self._sender_columns(group - 1).stop))
            for group in range(1, self.depth + 1)
        ]

    def forward(self, states: Tensor) -> Tensor:
        """(images, inputs, S, S) to (images, outputs, S / stride, S / stride)."""
        *hidden, last = self.graph.blocks(self._pieces())
        buffer = NodeMapBuffer(self.inputs + self.outputs * len(hidden), last.edges is not None)
        buffer.send(self.downsample(F.relu_(self.norm[0](states))))
        for group, weights in enumerate(hidden, start=1):
            sources = F.relu_(self.norm[group](buffer.receive(weights)))
            filters = self.conv.weight[self._target_rows(group)]
            buffer.send(F.conv2d(sources, filters, padding=1, groups=self.outputs))
        return buffer.receive(last)

    def stage(self, name: str) -> Stage:
        """The description of this stage."""
        entering = self.downsample[0]
        assert isinstance(entering, nn.Conv2d)
        groups = [Group(self._sender_columns(0), None, self.norm[0], entering.weight, entering.stride[0])]
        for group in range(1, self.depth):
            rows = self._target_rows(group)
            groups.append(Group(self._sender_columns(group), rows, self.norm[group], self.conv.weight[rows]))
        return Stage(f"{name}.graph", self.graph, tuple(groups), self._target_rows(self.depth))


class WiredClassifier(nn.Module):
    """A classifier whose weights are edges, without bias."""

    graph: EdgeRule

    def __init__(self, features: int, classes: int, make_rule: RuleMaker) -> None:
        super().__init__()
        self.graph = make_rule(PotentialEdges(classes, features, features, classes))

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.graph().flatten(1))


class MobileNetV1Like(WiredNetwork):
    """A stem, five wired stages and a classifier.

    Args:
        in_channels: channels of an image.
        image_size: height and width of an image, in pixels; up to 64 the stem has stride 1, above it 2.
        output_size: classes.
        small: the classifier is wired, too.
        setting: `static` draws random wirings in the pattern of acyclic graphs.
        prune_rate: 1 − width multiplier of the dense MobileNet with the same number of 1×1 weights.
        make_rule: makes the edge rule of each stage and of a wired classifier.
    """

    image_size: int
    linear: nn.Linear | WiredClassifier

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        output_size: int,
        small: bool,
        setting: str,
        prune_rate: float,
        make_rule: RuleMaker,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        stride = _stem_stride(image_size)
        self.conv1 = nn.Conv2d(in_channels, STAGES[0][0], 3, stride=stride, padding=1, bias=False)
        self.layers = nn.ModuleList(
            WiredStage(*stage, acyclic=setting == "static", prune_rate=prune_rate, make_rule=make_rule)
            for stage in STAGES
        )
        features = STAGES[-1][1]
        self.bn = nn.BatchNorm2d(features)
        self.linear = (
            WiredClassifier(features, output_size, make_rule) if small else nn.Linear(features, output_size)
        )

    def forward(self, images: Tensor) -> Tensor:
        states = self.conv1(to_fast_layout(images))
        for layer in self.layers:
            states = layer(states)
        logits: Tensor = self.linear(F.relu_(self.bn(states)).mean((2, 3)))
        return logits

    def stages(self) -> list[Stage]:
        """The stages between stem and classifier."""
        return [layer.stage(f"layers.{number}") for number, layer in enumerate(self._stages())]

    def structure(self) -> AcyclicStructure:
        """The stem's convolution, five stages, and the mean of each rectified map for the classifier."""
        if isinstance(self.linear, WiredClassifier):
            classifier = Classifier(self.linear.graph)
        else:
            classifier = Classifier(self.linear.weight, self.linear.bias)
        return AcyclicStructure(self.conv1, self.stages(), self.bn, mean_of_relu, classifier)

    def wired_layers(self, image_size: int | None = None) -> list[GraphLayer]:
        """The graphs of this network, for images of this size; None: of the network's own size."""
        layers = self._stage_layers(image_size or self.image_size)
        if isinstance(self.linear, WiredClassifier):
            layers.append(GraphLayer("linear.graph", self.linear.graph, map_size=1, filter_weights=0))
        return layers

    def complexity(self, image_size: int | None = None) -> list[LayerComplexity]:
        """Cost as counted in the paper: edges in use, filters of nodes with an outgoing edge, live features.

        Norms and biases are not counted. A size above 64 px is counted with the stem's stride of 2.
        """
        image_size = image_size or self.image_size
        stages, liveness = self._stage_layers(image_size), self.liveness()
        stem = self.conv1.weight[0].numel() * int(stages[0].adjacency().any(0).sum())
        layers = [
            LayerComplexity("conv1", stem, stem * conv_out_size(image_size, _stem_stride(image_size)) ** 2)
        ]
        layers += [stage.complexity(live.edges) for stage, live in zip(stages, liveness, strict=True)]
        features = int(stages[-1].adjacency()[-self.bn.num_features :].any(1).sum())
        layers.append(LayerComplexity("pool", 0, features * stages[-1].map_size ** 2))
        if isinstance(self.linear, WiredClassifier):
            classifier = self.wired_layers(image_size)[-1]
            effective = classifier.adjacency().cpu() & liveness[-1].outputs_reached
            return [*layers, classifier.complexity(effective)]
        weights = features * self.linear.out_features
        return [*layers, LayerComplexity("linear", weights, weights)]

    def _stage_layers(self, image_size: int) -> list[GraphLayer]:
        size = conv_out_size(image_size, _stem_stride(image_size))
        layers = []
        for number, layer in enumerate(self._stages()):
            size = conv_out_size(size, layer.stride)
            layers.append(GraphLayer(f"layers.{number}.graph", layer.graph, size))
        return layers

    def _stages(self) -> list[WiredStage]:
        return [layer for layer in self.layers if isinstance(layer, WiredStage)]


def _stem_stride(image_size: int) -> int:
    return 1 if image_size <= 64 else 2
