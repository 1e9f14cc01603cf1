"""Batch norms whose statistics are those of a batch over all processes.

torch has them for GPUs alone; here is the same for CPUs.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from genutil.distributed.world import ALONE, World


def synchronise_batch_norms(network: nn.Module, world: World) -> nn.Module:
    """The network with batch norms that share their statistics. Names, weights and buffers stay.

    To be called before the network is spread over the processes.
    """
    if world.size == 1:
        return network
    if world.device.type == "cuda":
        converted = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return cast(nn.Module, converted)
    for name, child in network.named_children():
        if isinstance(child, _BatchNorm):
            setattr(network, name, SharedBatchNorm.like(child, world))
        else:
            synchronise_batch_norms(child, world)
    return network


class SharedBatchNorm(nn.BatchNorm2d):
    """A batch norm over the images of all processes, for maps of any number of dimensions."""

    _world = ALONE

    @classmethod
    def like(cls, norm: _BatchNorm, world: World) -> SharedBatchNorm:
        """With the same parameters, buffers and settings."""
        shared = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        shared._world = world
        shared._parameters, shared._buffers = norm._parameters, norm._buffers
        return shared.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"a batch norm needs (images, channels, …), got {input.dim()} dimensions")

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        if not self.training:
            return super().forward(input)
        normed: Tensor
        normed, mean, variance, count = _Norm.apply(input, self.weight, self.bias, self.eps, self._world)
        if self.running_mean is not None and self.running_var is not None:
            self._note(mean, variance, count)
        return normed

    @torch.no_grad()
    def _note(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics, as torch's batch norms do: with the unbiased variance."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        unbiased = variance * count / (count - 1)
        self.running_var.lerp_(unbiased.to(self.running_var), share)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, world: World
    ) -> Any:
        others = [number for number in range(maps.dim()) if number != 1]
        shape = [1, -1] + [1] * (maps.dim() - 2)
        own_count = maps.numel() // maps.shape[1]
        total = maps.new_zeros(2 * maps.shape[1] + 1, dtype=torch.float64)
        if own_count:
            # As torch.var_mean, which for maps with channels last in memory is twenty times slower.
            mean, variance = (part.double() for part in torch.batch_norm_update_stats(maps, None, None, 0.0))
            total[:-1] = torch.cat([mean, variance + mean.square()]) * own_count
            total[-1] = own_count
        total = world.sum(total)
        count = total[-1]
        mean, square = (total[:-1] / count).chunk(2)
        variance = square - mean.square()
        exact = torch.promote_types(maps.dtype, torch.float32)  # 16 bits are for maps, not for statistics
        inverse = (variance + eps).rsqrt().to(exact)
        centre = mean.to(exact)
        scale = inverse if weight is None else inverse * weight
        ctx.save_for_backward(maps, centre, inverse, scale)
        ctx.world, ctx.others, ctx.shape, ctx.count = world, others, shape, float(count)
        ctx.has_weight, ctx.has_bias = weight is not None, bias is not None
        normed = torch.batch_norm(maps, weight, bias, centre, variance.to(exact), False, 0.0, eps, False)
        ctx.mark_non_differentiable(mean, variance, count)
        return normed, mean, variance, count

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        maps, mean, inverse, scale = ctx.saved_tensors
        shape, gradient = ctx.shape, gradients[0]
        centred = maps - mean.view(shape)
        own = torch.stack([gradient.sum(ctx.others), (gradient * centred).sum(ctx.others)]).double()
        average, along = (ctx.world.sum(own) / ctx.count).to(mean.dtype)
        slope = along * inverse.square()
        back = (gradient - average.view(shape) - centred * slope.view(shape)) * scale.view(shape)
        of_bias, of_weight = own.to(mean.dtype)
        return (
            back.to(maps.dtype),
            of_weight * inverse if ctx.has_weight else None,
            of_bias if ctx.has_bias else None,
            None,
            None,
        )
