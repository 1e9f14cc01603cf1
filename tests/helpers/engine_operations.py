"""Programs of the native engine with operations of all kinds, and what they compute."""

import torch
import torch.nn.functional as F

from wirings.native.operations import Activation, Operations, Placement


def all_kinds(seed):
    """Operations on random maps, a batch of inputs, and the expected output."""
    generator = torch.Generator().manual_seed(seed)
    height, width, channels = (
        int(torch.randint(low, high, (1,), generator=generator)) for low, high in ((9, 30), (9, 40), (3, 9))
    )

    def random(*shape, density=1.0):
        values = torch.randn(*shape, generator=generator)
        return values * (torch.rand(*shape, generator=generator) < density)

    images = random(1 + seed, channels, height, width)
    operations = Operations()
    maps = operations.input(channels, (height, width))

    def convolution(maps, x, targets, window, stride, density, groups=1):
        weight = random(targets, x.shape[1] // groups, window, window, density=density) / window
        bias, padding = random(targets), window // 2
        arguments = ((stride, stride), (padding, padding), (1, 1), groups)
        result = operations.convolution(maps, weight.numpy(), bias.numpy(), *arguments)
        return result, F.conv2d(x, weight, bias, stride, padding, 1, groups)

    maps, x = convolution(maps, images, 12, 3, 2, 0.4)
    maps, x = operations.activation(maps, Activation.RELU, "relu"), F.relu(x)
    filtered, y = convolution(maps, x, 12, 5, 1, 1.0, groups=12)
    filtered, y = operations.activation(filtered, Activation.HARDSWISH, "hardswish"), F.hardswish(y)
    added, z = convolution(filtered, y, 12, 1, 1, 0.2)
    maps, x = operations.combine(added, maps, False, "add"), z + x
    gates, g = operations.mean(maps, "mean"), x.mean((2, 3), keepdim=True)
    gates, g = convolution(gates, g, 12, 1, 1, 0.1)
    gates, g = operations.activation(gates, Activation.SIGMOID, "sigmoid"), g.sigmoid()
    maps, x = operations.combine(maps, gates, True, "scale"), x * g
    size = tuple((length + 2 - 3) // 2 + 1 for length in maps.size)
    maps, x = operations.pool(maps, 3, 2, 1, 0, size, "pool"), F.max_pool2d(x, 3, 2, 1)
    size = tuple((length + 2 - 3) // 1 + 1 for length in maps.size)
    maps, x = (
        operations.pool(maps, 3, 1, 1, 1, size, "mean pool"),
        F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    )
    scale, shift = random(12), random(12)
    maps = operations.affine(maps, scale.numpy(), shift.numpy(), "affine", Activation.SILU)
    x = F.silu(x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1))
    size = (maps.size[0] + 3, maps.size[1] + 1)
    maps, x = operations.place(maps, Placement((0, 0), 1, (2, 1), 1), size, "pad"), F.pad(x, (1, 0, 2, 1))
    weight, bias = random(70, 12), random(70)
    maps = operations.linear(operations.mean(maps, "mean"), weight.numpy(), bias.numpy())
    operations.output(maps)
    return operations, images, F.linear(x.mean((2, 3)), weight, bias)
