"""Compact networks: a stem, the stages that plans describe, and a head."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wirings.cached_module import CachedModule
from wirings.engines import FusedProduct, Product, SendingProduct
from wirings.engines.dense import DenseProduct
from wirings.layout import conv_out_size, depthwise, mean_of_relu
from wirings.plan import StagePlan, TargetPlan, as_affine
from wirings.structure import Classifier, Pool
from wirings.wrappers import EvaluationOnly

MakeProduct = Callable[[Tensor], Product]


class RunnableStage(nn.Module, ABC):
    """The interface of a compact network's stages."""

    @abstractmethod
    def constants(self, entering: Tensor) -> tuple[list[Tensor], Tensor]:
        """Biases of live nodes from constant ones, and the constant maps that leave, (nodes, 1, S, S).

        Args:
            entering: maps of the constant nodes that enter, (nodes, 1, S, S).
        """

    def enter(self, maps: Tensor) -> Tensor:
        """Prepare the maps of the live nodes that enter, (nodes, images, S, S), for `forward`."""
        return maps

    @abstractmethod
    def forward(self, entered: Tensor, biases: list[Tensor], following: RunnableStage | None) -> Tensor:
        """Run the stage.

        Args:
            entered: result of `enter`, or of the stage before.
            biases: result of `constants`.
            following: the next stage.

        Returns:
            Maps of the live nodes that leave; with a following stage, prepared for its `forward`.
        """


class CompactNetwork(EvaluationOnly, CachedModule):
    """Stem, compact stages and head. Maps in between are (nodes, images, S, S).

    Args:
        stem: images to the first stage's live nodes, (nodes, images, S, S), norm included.
        stages: in order.
        head: the last stage's live and constant outputs to logits.
    """

    cached_attributes = ("_constants",)
    _constants: dict[tuple[object, ...], tuple[list[list[Tensor]], Tensor]]

    def __init__(self, stem: nn.Module, stages: Sequence[RunnableStage], head: CompactHead) -> None:
        super().__init__()
        self.stem, self.stages, self.head = stem, nn.ModuleList(stages), head
        self.eval()

    def reset_cache(self) -> None:
        self._constants = {}

    @property
    def is_mobilenet_graph(self) -> bool:
        """Whether native kernels and `.safetensors` files support it: a 3×3 convolution, stages whose norms
        are all folded, strides of 1 and 2, and the mean of each rectified map.
        """
        layers = [self.stem, *self.stages]
        products = [module for module in self.modules() if isinstance(module, TargetProduct)]
        return (
            isinstance(self.stem, ConvStem)
            and self.head.pool is mean_of_relu
            and all(
                isinstance(layer, (ConvStem, CompactStage)) and layer.stride in (1, 2) for layer in layers
            )
            and all(isinstance(product.after, nn.Identity) for product in products)
        )

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(images, channels, height, width) to logits (images, classes)."""
        maps = self.stem(images)
        biases, constant_logits = self.constants_for(maps)
        stages = [stage for stage in self.stages if isinstance(stage, RunnableStage)]
        maps = stages[0].enter(maps)
        for stage, following, bias in zip(stages, [*stages[1:], None], biases, strict=True):
            maps = stage(maps, bias, following)
        logits: Tensor = self.head(maps) + constant_logits
        return logits

    def constants_for(self, maps: Tensor) -> tuple[list[list[Tensor]], Tensor]:
        """Biases of every stage and the constant part of the logits, for maps of this size: computed once."""
        key = (maps.shape[2:], maps.device, maps.dtype)
        if key not in self._constants:
            constant, biases = maps.new_empty(0, 1, *maps.shape[2:]), []
            for stage in self.stages:
                assert isinstance(stage, RunnableStage)
                stage_biases, constant = stage.constants(constant)
                biases.append(stage_biases)
            self._constants[key] = biases, self.head.constant_logits(constant)
        return self._constants[key]


class ConvStem(nn.Module):
    """A 3×3 convolution with the following norm folded into it.

    Args:
        weight: (nodes, channels, 3, 3).
        bias: (nodes).
        stride: of the convolution.
    """

    def __init__(self, weight: Tensor, bias: Tensor, stride: int) -> None:
        super().__init__()
        self.weight, self.bias, self.stride = fixed(weight), fixed(bias), stride

    def forward(self, images: Tensor) -> Tensor:
        """(images, channels, height, width) to maps (nodes, images, S, S)."""
        if not len(self.weight):  # torch refuses convolutions without outputs
            height, width = (conv_out_size(length, self.stride) for length in images.shape[2:])
            return images.new_empty(0, len(images), height, width)
        return F.conv2d(images, self.weight, self.bias, self.stride, padding=1).transpose(0, 1)


class ModuleStem(nn.Module):
    """Any stem and the following norm, for the live nodes.

    Args:
        stem: images to maps (images, nodes, S, S); it is copied.
        norm: of these maps, or None.
        live: indices of the remaining nodes.
    """

    def __init__(self, stem: nn.Module, norm: nn.Module | None, live: Tensor) -> None:
        super().__init__()
        self.stem, self.norm = copy.deepcopy(stem), nn.Identity() if norm is None else copy.deepcopy(norm)
        self.live = nn.Parameter(live, requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.norm(self.stem(images))
        return maps.index_select(1, self.live).transpose(0, 1).contiguous()


def compact_stem(stem: nn.Module, norm: nn.Module | None, live: Tensor) -> ConvStem | ModuleStem:
    """A ConvStem if the stem is a 3×3 convolution and the norm can be folded into it; else a ModuleStem."""
    if not _is_plain_conv(stem):
        return ModuleStem(stem, norm, live)
    assert isinstance(stem, nn.Conv2d)
    affine = as_affine(norm, stem.weight, stem.out_channels).select(live)
    if affine.function is not None:
        return ModuleStem(stem, norm, live)
    bias = affine.shift if stem.bias is None else affine.shift + stem.bias[live] * affine.scale
    return ConvStem(stem.weight[live] * affine.scale.view(-1, 1, 1, 1), bias, stem.stride[0])


def _is_plain_conv(stem: nn.Module) -> bool:
    """Whether this is a 3×3 convolution with padding 1, no subclass, without hooks."""
    if type(stem) is not nn.Conv2d or stem._forward_hooks or stem._forward_pre_hooks:
        return False
    settings = (stem.kernel_size, stem.padding, stem.dilation, stem.groups, stem.padding_mode)
    return settings == ((3, 3), (1, 1), (1, 1), 1, "zeros") and stem.stride[0] == stem.stride[1]


class CompactStage(RunnableStage):
    """The live and the constant nodes of a stage.

    Args:
        plan: of the stage.
        make: makes the product of an engine.
        maps_type: of the maps between products; None: that of the maps that enter.
    """

    def __init__(self, plan: StagePlan, make: MakeProduct, maps_type: torch.dtype | None = None) -> None:
        super().__init__()
        self.stride, self.maps_type = plan.groups[0].stride, maps_type
        live = [group.live for group in plan.groups]
        constant = [group.constant for group in plan.groups]
        self.filters = nn.ParameterList(fixed(nodes.filters) for nodes in live)
        self.constant_filters = nn.ParameterList(fixed(nodes.filters) for nodes in constant)
        targets = [nodes.targets for nodes in live if nodes.targets is not None]
        self.products = nn.ModuleList(TargetProduct(target, make) for target in [*targets, plan.live_outputs])
        targets = [nodes.targets for nodes in constant if nodes.targets is not None]
        self.constant_products = nn.ModuleList(
            TargetProduct(target, None) for target in [*targets, plan.constant_outputs]
        )

    def constants(self, entering: Tensor) -> tuple[list[Tensor], Tensor]:
        """Biases of each product with live targets, and the constant maps that leave."""
        maps, sources, biases = entering, entering.new_empty(0), []
        steps = zip(self.constant_filters, self.products, self.constant_products, strict=True)
        for number, (filters, live_product, constant_product) in enumerate(steps):
            sent = depthwise(F.relu(maps), filters, self.stride if number == 0 else 1)
            sources = torch.cat([sources, sent]) if number else sent
            assert isinstance(live_product, TargetProduct)
            assert isinstance(constant_product, TargetProduct)
            biases.append(live_product.bias(sources))
            maps = constant_product.after(constant_product.bias(sources))
        return biases, maps

    def enter(self, maps: Tensor) -> Tensor:
        """(live sources, images, S', S'): rectified, filtered maps of the first group; others are not set."""
        sources, entering = self.allocate(maps), self.filters[0]
        product = self.products[0].product
        if isinstance(product, SendingProduct):
            product.filter(maps, None, entering, self.stride, sources[: len(entering)])
        else:
            sources[: len(entering)] = depthwise(F.relu(maps), entering, self.stride)
        return sources

    def allocate(self, maps: Tensor) -> Tensor:
        """Memory for the maps of all live sources, if maps of this size enter."""
        images, *size = maps.shape[1:]
        height, width = (conv_out_size(length, self.stride) for length in size)
        total = sum(len(filters) for filters in self.filters)
        return maps.new_empty(total, images, height, width, dtype=self.maps_type)

    def forward(self, entered: Tensor, biases: list[Tensor], following: RunnableStage | None) -> Tensor:
        sources, end = entered, 0
        products = [product for product in self.products if isinstance(product, TargetProduct)]
        for filters, product, bias, next_filters in zip(
            self.filters, products, biases, [*self.filters[1:], None], strict=True
        ):
            end += len(filters)
            if next_filters is not None:
                product.send(sources[:end], bias, next_filters, 1, sources[end : end + len(next_filters)])
        product, bias = products[-1], biases[-1]
        if isinstance(following, CompactStage):
            next_sources, entering = following.allocate(sources), following.filters[0]
            product.send(sources[:end], bias, entering, following.stride, next_sources[: len(entering)])
            return next_sources
        maps: Tensor = product(sources[:end], bias, rectified=False)
        return maps if following is None else following.enter(maps)


class CompactHead(nn.Module):
    """The classifier on features of live nodes; those of constant nodes are included in the bias.

    Args:
        classifier: of all features.
        live, constant: indices of the live and of the constant features.
        pool: maps (nodes, images, S, S) to features (nodes, images).
    """

    def __init__(self, classifier: Classifier, live: Tensor, constant: Tensor, pool: Pool) -> None:
        super().__init__()
        weight = classifier_weight(classifier)
        self.weight, self.constant_weight = fixed(weight[:, live]), fixed(weight[:, constant])
        self.bias = fixed(weight.new_zeros(len(weight)) if classifier.bias is None else classifier.bias)
        self.pool = pool

    def constant_logits(self, maps: Tensor) -> Tensor:
        """(1, classes)."""
        return (self.constant_weight @ self.pool(maps)).t() + self.bias

    def forward(self, maps: Tensor) -> Tensor:
        return (self.weight @ self.pool(maps)).t()


class TargetProduct(nn.Module):
    """The product of some target nodes, its bias, and the norm if it is not folded.

    Args:
        targets: the weights.
        make: makes the product of an engine; None for constant targets, which have no live sources.
    """

    def __init__(self, targets: TargetPlan, make: MakeProduct | None) -> None:
        super().__init__()
        self.num_targets = len(targets.shift)
        empty = targets.live.numel() == 0
        self.product = None if make is None or empty else make(targets.live)
        self.constant, self.shift = fixed(targets.constant), fixed(targets.shift)
        self.after = targets.norm or nn.Identity()

    def bias(self, sources: Tensor) -> Tensor:
        """Sum over constant sources (nodes, 1, S, S), plus the shift: (targets, 1, S, S); or the shift."""
        shift = self.shift.view(-1, 1, 1, 1)
        if not len(sources):
            return shift if self.product is not None else shift.expand(-1, 1, *sources.shape[2:])
        return (self.constant @ sources.flatten(1)).view(-1, *sources.shape[1:]) + shift

    def forward(self, sources: Tensor, bias: Tensor, rectified: bool) -> Tensor:
        """Maps of live sources (nodes, images, S, S) to maps of the targets; `rectified`: with ReLU."""
        shape = (self.num_targets, *sources.shape[1:])
        if self.product is None:
            maps: Tensor = self.after(bias.expand(shape))
            return F.relu(maps) if rectified else maps
        if isinstance(self.product, FusedProduct) and isinstance(self.after, nn.Identity):
            return self.product.fused(sources.flatten(1), bias, rectified).view(shape)
        maps = self.after(self.product(sources.flatten(1)).view(shape).add_(bias))
        return F.relu_(maps) if rectified else maps

    def send(self, sources: Tensor, bias: Tensor, filters: Tensor, stride: int, result: Tensor) -> None:
        """Write the targets' rectified and filtered maps to `result`; see SendingProduct."""
        if isinstance(self.product, SendingProduct) and isinstance(self.after, nn.Identity):
            self.product.send(sources, bias, filters, stride, result)
        else:
            result.copy_(depthwise(self(sources, bias, rectified=True), filters, stride))


def dense_weight(product: TargetProduct) -> Tensor:
    """(targets, sources) of a dense product; without live sources (targets, 0)."""
    if product.product is None:
        return product.shift.new_zeros(product.num_targets, 0)
    assert isinstance(product.product, DenseProduct)
    return product.product.weight


def classifier_weight(classifier: Classifier) -> Tensor:
    """(classes, features), without a gradient."""
    weight = classifier.weight if isinstance(classifier.weight, Tensor) else classifier.weight()
    return weight.detach().flatten(1)


def fixed(value: Tensor) -> nn.Parameter:
    """A copy as a parameter without gradient, which moves with its module."""
    return nn.Parameter(value.detach().clone(), requires_grad=False)
