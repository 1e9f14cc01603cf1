"""Instance norm that is fast with channels last in memory.

Depthwise convolutions on the CPU are several times faster with channels last; torch's instance norm is slower
there, so it is implemented for that layout.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _InstanceNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        weight, bias = weight.view(1, -1, 1, 1), bias.view(1, -1, 1, 1)
        mean = maps.mean((2, 3), keepdim=True)
        centred = maps - mean
        variance = (centred * centred).mean((2, 3), keepdim=True)
        inverse = (variance + eps).rsqrt_()
        ctx.save_for_backward(maps, mean, inverse, weight)
        return torch.addcmul(bias, centred, inverse * weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        maps, mean, inverse, weight = ctx.saved_tensors
        (gradient,) = gradients
        pixels = maps.shape[2] * maps.shape[3]
        centred = maps - mean
        total = gradient.sum((2, 3), keepdim=True)
        projection = (gradient * centred).sum((2, 3), keepdim=True) * inverse
        scale = inverse * weight
        factor = projection * inverse * scale / -pixels
        maps_gradient = torch.addcmul(total * scale / -pixels, gradient, scale).addcmul_(centred, factor)
        return maps_gradient, projection.sum(0).flatten(), total.sum(0).flatten(), None


class NodeNorm(nn.InstanceNorm2d):
    """Instance norm of each node's map, with a scale and a shift per node.

    Args:
        num_nodes: channels.
    """

    def __init__(self, num_nodes: int) -> None:
        super().__init__(num_nodes, affine=True)

    def forward(self, maps: Tensor) -> Tensor:
        """(images, nodes, height, width), any memory format."""
        return self.normalize(maps, slice(0, self.num_features))

    def normalize(self, maps: Tensor, nodes: slice) -> Tensor:
        """The norm of a range of nodes; `maps` are the maps of only these nodes."""
        weight, bias = self.weight[nodes], self.bias[nodes]
        is_supported = maps.device.type == "cpu" and maps.dtype == weight.dtype
        if torch.compiler.is_compiling() or not is_supported or maps.is_contiguous():
            return F.instance_norm(maps, weight=weight, bias=bias, eps=self.eps)
        normed: Tensor = _InstanceNorm.apply(maps, weight, bias, self.eps)
        return normed
