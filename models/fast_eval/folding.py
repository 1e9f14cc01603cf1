"""Networks without wiring: nothing can be removed, but batch norms fold into the convolutions before them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.basic.mobilenetv1cifar import MobileNetV1CIFAR
from models.fast_eval.network import EvaluationOnly


class _Folded(EvaluationOnly):
    """Hands on to a network whose norms are folded."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.eval()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits


def fold_norms(model: MobileNetV1CIFAR) -> EvaluationOnly:
    """The network with each `bn1`, `bn2` folded into `conv1`, `conv2`; the model itself is not changed."""
    folded = copy.deepcopy(model).eval()
    for block in [folded, *folded.layers]:
        for conv, norm in (("conv1", "bn1"), ("conv2", "bn2")):
            if hasattr(block, conv):
                setattr(block, conv, fuse_conv_bn_eval(getattr(block, conv), getattr(block, norm)))
                setattr(block, norm, nn.Identity())
    return _Folded(folded)
