"""ResNets (v1.5: the stride is in the 3×3 convolution) whose layers select their weights.

The network is torchvision's; its convolutions are replaced, and its classifier is a 1×1 convolution, too.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

import wirings
from genutil.checkpoint.serialization import apply_weights, read_checkpoint, report_changes
from genutil.errors import CheckpointError
from imagenet_sparsity_experiments.configurations import ARCHITECTURES, Configuration
from wirings.topk import num_kept
from wirings.weight_names import match_names

_log = logging.getLogger(__name__)

_BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}


class SparseResNet(ResNet):  # type: ignore[misc]
    """A ResNet with torchvision's state names; `fc.weight` is (classes, features, 1, 1), and has no bias.

    Args:
        arch: one of ARCHITECTURES.
        configuration: how the layers choose their weights.
        num_classes: of the classifier.
        channels_last: let the maps lie in memory with the channels last.
    """

    def __init__(
        self,
        arch: str,
        configuration: Configuration,
        num_classes: int = 1000,
        channels_last: bool = False,
    ) -> None:
        kind, depths = ARCHITECTURES[arch]
        super().__init__(_BLOCKS[kind], list(depths), num_classes=num_classes)
        self.channels_last = channels_last
        num_features = cast(nn.Linear, self.fc).in_features
        self.fc: nn.Module = nn.Conv2d(num_features, num_classes, 1, bias=False)
        rates = {}
        for name, conv in self.named_modules():
            if isinstance(conv, nn.Conv2d):
                rates[name] = configuration.first_prune_rate if name == "conv1" else configuration.prune_rate
                if rates[name]:
                    conv.reset_parameters()  # so that a seed gives the weights that it always gave
                nn.init.kaiming_normal_(conv.weight, mode=configuration.initialisation, nonlinearity="relu")
        _wire(self, {name: rate for name, rate in rates.items() if rate}, configuration)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (images, classes)."""
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        logits: Tensor = self.fc(self.avgpool(maps)).flatten(1)
        return logits


def _wire(network: nn.Module, rates: Mapping[str, float], configuration: Configuration) -> None:
    """Let layers select their weights, each by the published number: all but the whole part of rate · size.

    Args:
        network: changed in rank_info.
        rates: fraction of the weights that is left out, by the layer's name.
        configuration: which rule selects.
    """
    if not rates:
        return
    rate = configuration.prune_rate
    options: dict[str, Any] = {"prune_rate": rate, "rho": rate} if configuration.dropout else {}
    wirings.wire(
        network,
        "td" if configuration.dropout else "dnw",
        budget=lambda shapes, _: {
            name: num_kept(math.prod(shape), rates[name.removesuffix(".weight")])
            for name, shape in shapes.items()
        },
        include=rates,
        **options,
    )


def load_pretrained(network: SparseResNet, path: str, new_classifier: bool) -> dict[str, Any]:
    """Take over the weights of another training, or of torchvision's ResNet of the same architecture.

    Returns the file's content.

    torchvision's classifier becomes a 1×1 convolution, and its bias is dropped with a notice.

    Args:
        network: the network.
        path: the file.
        new_classifier: a classifier for another number of classes is left out, with a notice.

    Raises:
        CheckpointError: the file cannot be read or does not fit the network.
    """
    content = read_checkpoint(path)
    own = network.state_dict()
    matched = match_names(content["model"], own)
    weights, kept = matched.weights, []
    classifier = weights.get("fc.weight")
    if isinstance(classifier, Tensor) and classifier.dim() == 2:
        weights["fc.weight"] = classifier[:, :, None, None]
    if weights.pop("fc.bias", None) is not None:
        _log.warning("%s: the bias of its classifier is dropped; this network's classifier has none", path)
    if isinstance(classifier, Tensor) and len(classifier) != len(own["fc.weight"]):
        message = (
            f"{path}: its classifier is for {len(classifier)} classes, this one for {len(own['fc.weight'])}"
        )
        if not new_classifier:
            raise CheckpointError(f"{message}; give --num-classes {len(classifier)}")
        _log.warning("%s: it starts anew", message)
        del weights["fc.weight"]
        kept.append("fc.weight")
    apply_weights({**content, "model": weights, "weights_under": None}, network, path, optional=kept)
    report_changes(content, matched, path)
    _log.info("took the weights of %s", path)
    return content
