"""Batch norms over all processes are those of the whole batch in one."""

import pytest
import torch
from torch import nn

from genutil.distributed.world import ALONE
from tests.helpers.processes import together
from trainers.sync_bn import SharedBatchNorm, synchronise_batch_norms

SHARES = {"uneven": (4, 2, 1), "with an empty one": (5, 0, 2)}
SETTINGS = {
    "plain": {},
    "cumulative": {"momentum": None},
    "bare": {"affine": False, "track_running_stats": False},
}


def batch():
    generator = torch.Generator().manual_seed(0)
    images = 3 + 2 * torch.randn(7, 3, 4, 5, generator=generator, dtype=torch.float64)
    return images, torch.randn(7, 3, 4, 5, generator=generator, dtype=torch.float64)


def norm_of(settings):
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(3, **settings).double()
    for parameter in norm.parameters():
        nn.init.uniform_(parameter)
    return nn.Sequential(norm)


def passes(network, images, weights, times=2):
    """Outputs, gradients of images and parameters, and state after a few passes."""
    images = images.clone().requires_grad_()
    for _ in range(times):
        outputs = network(images)
        network.zero_grad()
        images.grad = None
        (outputs * weights).sum().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    maps = [outputs.detach(), images.grad]
    if network[0].track_running_stats:
        maps.append(network.eval()(images).detach())
    return maps, gradients, network.state_dict()


def share_of(world, shares, settings):
    images, weights = (part.split(shares)[world.rank] for part in batch())
    network = norm_of(settings)
    before = list(network.parameters())
    network = synchronise_batch_norms(network, world)
    assert isinstance(network[0], SharedBatchNorm)
    assert all(now is then for now, then in zip(network.parameters(), before, strict=True))
    return passes(network, images, weights)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("shares", SHARES)
def test_shares_are_normed_as_the_whole_batch(shares, settings):
    maps, gradients, state = passes(norm_of(SETTINGS[settings]), *batch())
    found = together(3, share_of, SHARES[shares], SETTINGS[settings])
    for number, expected in enumerate(maps):
        torch.testing.assert_close(torch.cat([one[0][number] for one in found]), expected)
    for number, expected in enumerate(gradients):
        torch.testing.assert_close(sum(one[1][number] for one in found), expected)
    for _, _, other in found:
        torch.testing.assert_close(other, state)


def test_a_single_process_keeps_its_norms():
    network = norm_of({})
    assert synchronise_batch_norms(network, ALONE) is network
    assert type(network[0]) is nn.BatchNorm2d


def test_maps_without_channels_are_refused():
    with pytest.raises(ValueError, match=r"needs \(images, channels, …\), got 1 dimensions"):
        SharedBatchNorm(3)(torch.zeros(3))
