"""MobileNetV1 as a graph: the 1×1 convolutions of a stage are one wired layer with edges across blocks.

Source: Wortsman, Farhadi, Rastegari, "Discovering Neural Wirings", NeurIPS 2019, section 3.2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.graphs.edges import EdgeMaker, EdgeRule, EdgeSpace
from wirings.budgets import mobilenet_stage
from wirings.layout import conv_out_size, mean_of_relu, to_fast_layout
from wirings.node_map_buffer import NodeMapBuffer
from wirings.stages import Group, Stage
from wirings.structure import AcyclicStructure, Classifier, GraphLayer, LayerComplexity, WiredNetwork

STAGES = ((32, 64, 1, 1), (64, 128, 2, 2), (128, 256, 2, 2), (256, 512, 2, 6), (512, 1024, 2, 2))
"""(nodes that enter, nodes that leave, stride, blocks) of each stage."""


class WiredStage(nn.Module):
    """One stage: the entering nodes send to all blocks; each block but the last sends to all later ones.

    Args:
        inputs, outputs: numbers of nodes that enter and leave.
        stride: of the filters of the entering nodes.
        blocks: number of groups of `outputs` nodes.
        acyclic: random wirings are drawn in the pattern of acyclic graphs.
        prune_rate: of the network; the stage has as many edges in use as the dense stage has weights at a
            width of 1 − prune_rate.
        edges: makes the edge rule.
    """

    graph: EdgeRule

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        blocks: int,
        acyclic: bool,
        prune_rate: float,
        edges: EdgeMaker,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.blocks, self.stride = inputs, outputs, blocks, stride
        hidden = outputs * (blocks - 1)
        self.downsample = nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, stride=stride, padding=1, groups=inputs, bias=False)
        )
        if hidden:
            self.conv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.norm = nn.ModuleList(nn.BatchNorm2d(width) for width in [inputs] + [outputs] * (blocks - 1))
        rows, columns = outputs * blocks, inputs + hidden
        num_edges = mobilenet_stage(inputs, outputs, blocks, width=1 - prune_rate)
        readable = torch.zeros(rows, columns, dtype=torch.bool)
        for block in self._receivers:
            readable[self._target_rows(block), self._source_columns(block)] = True
        space = EdgeSpace(rows, columns, inputs, outputs, acyclic, readable)
        self.graph = edges(space, prune_rate=1 - num_edges / (rows * columns))

    def _sender_columns(self, block: int) -> slice:
        """Columns of the nodes that send in step `block`: the entering nodes, then each hidden block."""
        start = self.inputs + (block - 1) * self.outputs
        return slice(0, self.inputs) if block == 0 else slice(start, start + self.outputs)

    @property
    def _receivers(self) -> range:
        """Numbers of the groups that receive: the hidden blocks, then the nodes that leave."""
        return range(1, self.blocks + 1)

    def _target_rows(self, block: int) -> slice:
        """Rows of a group that receives."""
        return slice((block - 1) * self.outputs, block * self.outputs)

    def _source_columns(self, block: int) -> slice:
        """Columns from which a group receives: all groups before it."""
        return slice(0, self._sender_columns(block - 1).stop)

    def forward(self, states: Tensor) -> Tensor:
        """(images, inputs, S, S) to (images, outputs, S / stride, S / stride)."""
        pieces = [(self._target_rows(block), self._source_columns(block)) for block in self._receivers]
        *hidden, last = self.graph.blocks(pieces)
        buffer = NodeMapBuffer(self.inputs + self.outputs * len(hidden), last.edges is not None)
        buffer.send(self.downsample(F.relu_(self.norm[0](states))))
        for block, weights in enumerate(hidden, start=1):
            sources = F.relu_(self.norm[block](buffer.receive(weights)))
            filters = self.conv.weight[self._target_rows(block)]
            buffer.send(F.conv2d(sources, filters, padding=1, groups=self.outputs))
        return buffer.receive(last)

    def stage(self, name: str) -> Stage:
        """The structure of this layer."""
        entering = self.downsample[0]
        assert isinstance(entering, nn.Conv2d)
        groups = [Group(self._sender_columns(0), None, self.norm[0], entering.weight, entering.stride[0])]
        for block in range(1, self.blocks):
            rows = self._target_rows(block)
            groups.append(Group(self._sender_columns(block), rows, self.norm[block], self.conv.weight[rows]))
        return Stage(f"{name}.graph", self.graph, tuple(groups), self._target_rows(self.blocks))


class WiredLinear(nn.Module):
    """A classifier whose weights are edges, without bias."""

    graph: EdgeRule

    def __init__(self, features: int, classes: int, edges: EdgeMaker) -> None:
        super().__init__()
        self.graph = edges(EdgeSpace(classes, features, features, classes))

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
        edges: makes the edge rule of a space of potential edges.
    """

    image_size: int
    linear: nn.Linear | WiredLinear

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        output_size: int,
        small: bool,
        setting: str,
        prune_rate: float,
        edges: EdgeMaker,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        stride = _stem_stride(image_size)
        self.conv1 = nn.Conv2d(in_channels, STAGES[0][0], 3, stride=stride, padding=1, bias=False)
        self.layers = nn.ModuleList(
            WiredStage(*stage, acyclic=setting == "static", prune_rate=prune_rate, edges=edges)
            for stage in STAGES
        )
        features = STAGES[-1][1]
        self.bn = nn.BatchNorm2d(features)
        self.linear = WiredLinear(features, output_size, edges) if small else nn.Linear(features, output_size)

    def forward(self, images: Tensor) -> Tensor:
        states = self.conv1(to_fast_layout(images))
        for layer in self.layers:
            states = layer(states)
        logits: Tensor = self.linear(F.relu_(self.bn(states)).mean((2, 3)))
        return logits

    def stages(self) -> list[Stage]:
        """The wired layers between stem and classifier."""
        return [layer.stage(f"layers.{number}") for number, layer in enumerate(self._stages())]

    def structure(self) -> AcyclicStructure:
        """The stem's convolution, five stages, and the mean of each rectified map for the classifier."""
        if isinstance(self.linear, WiredLinear):
            classifier = Classifier(self.linear.graph)
        else:
            classifier = Classifier(self.linear.weight, self.linear.bias)
        return AcyclicStructure(self.conv1, self.stages(), self.bn, mean_of_relu, classifier)

    def wired_layers(self, image_size: int | None = None) -> list[GraphLayer]:
        """The graphs of this network, for images of this size; None: of the network's own size."""
        layers = self._wired_stages(image_size or self.image_size)
        if isinstance(self.linear, WiredLinear):
            layers.append(GraphLayer("linear.graph", self.linear.graph, map_size=1, filter_weights=0))
        return layers

    def complexity(self, image_size: int | None = None) -> list[LayerComplexity]:
        """Cost as counted in the paper: edges in use, filters of nodes with an outgoing edge, live features.

        Norms and biases are not counted. A size above 64 px is counted with the stem's stride of 2.
        """
        image_size = image_size or self.image_size
        stages, liveness = self._wired_stages(image_size), self.liveness()
        stem = self.conv1.weight[0].numel() * int(stages[0].adjacency().any(0).sum())
        layers = [
            LayerComplexity("conv1", stem, stem * conv_out_size(image_size, _stem_stride(image_size)) ** 2)
        ]
        layers += [stage.complexity(live.edges) for stage, live in zip(stages, liveness, strict=True)]
        features = int(stages[-1].adjacency()[-self.bn.num_features :].any(1).sum())
        layers.append(LayerComplexity("pool", 0, features * stages[-1].map_size ** 2))
        if isinstance(self.linear, WiredLinear):
            classifier = self.wired_layers(image_size)[-1]
            effective = classifier.adjacency().cpu() & liveness[-1].outputs_reached
            return [*layers, classifier.complexity(effective)]
        weights = features * self.linear.out_features
        return [*layers, LayerComplexity("linear", weights, weights)]

    def _wired_stages(self, image_size: int) -> list[GraphLayer]:
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
