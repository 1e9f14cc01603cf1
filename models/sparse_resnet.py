"""ResNets (v1.5: the stride is in the 3×3 convolution) whose layers select their weights.

The network is torchvision's; its layers are wired, and its classifier is a 1×1 convolution, too.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Literal, cast

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from genutil.exceptions import CheckpointError, ConfigError
from models.wired import Wire
from wirings.layers import WiredLayer
from wirings.names import did_you_mean
from wirings.structure import FoldableNorms
from wirings.topk import num_kept

ARCHITECTURES: Mapping[str, tuple[type[BasicBlock | Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}
"""Kind of the blocks, and how many of them the four stages have. Source: He et al., arXiv 1512.03385."""
_log = logging.getLogger(__name__)


class SparseResNet(ResNet):  # type: ignore[misc]
    """A ResNet with torchvision's state names; `fc.weight` is (classes, features, 1, 1), and has no bias.

    Without a budget, each layer keeps n − int(prune_rate · n) of its n weights, the published number.

    Args:
        output_size: classes.
        prune_rate: fraction of each layer's weights that is not in use; 0: all layers stay dense.
        wire: wires the network with the rule and the budget of the experiment.
        image_size: height and width of the images, in pixels.
        in_channels: of the images.
        budget: of the experiment; None: as published.
        arch: one of ARCHITECTURES.
        exclude: patterns of names of layers that stay dense.
        initialisation: of all convolutions: normal, with the variance 2 / fan_in or 2 / fan_out.

    Raises:
        ConfigError: there is no such architecture, or a pattern fits no layer.
    """

    def __init__(
        self,
        output_size: int,
        prune_rate: float,
        wire: Wire,
        image_size: int | None = None,
        in_channels: int = 3,
        budget: object = None,
        arch: str = "resnet50",
        exclude: list[str] | None = None,
        initialisation: Literal["fan_in", "fan_out"] = "fan_in",
    ) -> None:
        if arch not in ARCHITECTURES:
            names = ", ".join(ARCHITECTURES)
            raise ConfigError(
                f"model_args: arch must be one of {names}, got {arch}{did_you_mean(arch, ARCHITECTURES)}"
            )
        block, depths = ARCHITECTURES[arch]
        super().__init__(block, list(depths), num_classes=output_size)
        self.image_size = image_size
        if in_channels != 3:
            self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        num_features = cast(nn.Linear, self.fc).in_features
        self.fc: nn.Module = nn.Conv2d(num_features, output_size, 1, bias=False)
        is_wired = prune_rate > 0 or budget is not None
        for name, layer in self.named_modules():
            if isinstance(layer, nn.Conv2d):
                if is_wired and not any(fnmatchcase(name, pattern) for pattern in exclude or ()):
                    layer.reset_parameters()  # draws as many random numbers as earlier versions did
                nn.init.kaiming_normal_(layer.weight, mode=initialisation, nonlinearity="relu")
        if is_wired:
            wire(
                self,
                exclude=exclude,
                default_budget=lambda shapes, _: {
                    name: num_kept(math.prod(shape), prune_rate) for name, shape in shapes.items()
                },
            )

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (images, classes)."""
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        logits: Tensor = self.fc(self.avgpool(maps)).flatten(1)
        return logits

    def structure(self) -> FoldableNorms | None:
        """Convolutions and batch norms of a dense network; None for a wired one: its channels are traced."""
        if any(isinstance(module, WiredLayer) for module in self.modules()):
            return None
        convolutions = [name for name, module in self.named_modules() if isinstance(module, nn.Conv2d)]
        return FoldableNorms([(name, _norm_after(name)) for name in convolutions if name != "fc"])

    def adapt_weights(
        self, weights: Mapping[str, Tensor], path: str, new_classifier: bool
    ) -> dict[str, Tensor]:
        """Weights of another training, or of torchvision's ResNet, as this network takes them.

        torchvision's classifier becomes a 1×1 convolution, and its bias is dropped with a warning.

        Args:
            weights: by the names of this network.
            path: their file, for messages.
            new_classifier: a classifier for another number of classes is ignored with a warning; this network
                keeps its own.

        Raises:
            CheckpointError: the classifier is for another number of classes.
        """
        adapted, own_classifier = dict(weights), self.state_dict()["fc.weight"]
        classifier = adapted.get("fc.weight")
        if classifier is None:
            return adapted
        if classifier.dim() == 2:
            adapted["fc.weight"] = classifier[:, :, None, None]
        if adapted.pop("fc.bias", None) is not None:
            _log.warning(
                "%s: the bias of its classifier is dropped; this network's classifier has none", path
            )
        if len(classifier) != len(own_classifier):
            message = (
                f"{path}: its classifier is for {len(classifier)} classes, this one for {len(own_classifier)}"
            )
            if not new_classifier:
                raise CheckpointError(f"{message}; set output_size (--num-classes) to {len(classifier)}")
            _log.warning("%s: this network's own classifier is used, untrained", message)
            adapted["fc.weight"] = own_classifier
        return adapted


def _norm_after(convolution: str) -> str:
    """Name of the batch norm that follows a convolution: bn1 after conv1, downsample.1 after downsample.0."""
    if convolution.endswith("downsample.0"):
        return f"{convolution[:-1]}1"
    return "bn".join(convolution.rsplit("conv", 1))
