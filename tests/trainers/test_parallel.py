"""One update by several processes, or in several parts, is the update of the whole batch."""

import copy

import pytest
import torch
import torch.nn.functional as F

from genutil.config import load_config
from genutil.distributed.world import ALONE
from genutil.errors import RunError
from genutil.seeding import rng_state, seed_everything
from models import build_model
from models.compiling import compile_network
from tests.conftest import ROOT, SMALL_GRAPH
from tests.helpers.equality import same
from tests.helpers.processes import together
from trainers.parallel import Replicas
from trainers.saving import CheckpointSaver
from trainers.sync_bn import synchronise_batch_norms
from trainers.trainer import Trainer

APP = ROOT / "apps/small_scale/static_dnw.yml"


def network(seed=0, graph="dnw"):
    """In float64; its stem's batch norms do as in evaluation, since they would tie the images together."""
    torch.manual_seed(seed)
    model = build_model(load_config(APP, {**SMALL_GRAPH, "graph": graph})).double()
    model.train().downsample.eval()
    return model


class OneBatch:
    """An epoch of one batch."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return 1

    def batches(self, epoch, start=0):
        yield self.images, self.labels


def batch(count):
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(count, 3, 16, 16, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, 10, (count,), generator=generator)


def update(world, shares, accumulate, seed=0, graph="dnw"):
    """Weights, buffers, loss and count after one step of this process's share."""
    images, labels = (part.split(shares)[world.rank] for part in batch(sum(shares)))
    model = network(seed + world.rank, graph)
    model.train = lambda mode=True: model
    trainer = Trainer(
        model, torch.optim.SGD(model.parameters(), lr=0.1), lambda step: 0.1,
        train=OneBatch(images, labels), val=OneBatch(images[:0], labels[:0]), num_epochs=1, topk=[1],
        device=torch.device("cpu"), log_interval=1, accumulate=accumulate, world=world,
    )  # fmt: skip
    trainer._train_epoch()
    return {**model.state_dict(), "loss": trainer.running["CELoss"]}


@pytest.mark.parametrize(
    ("shares", "accumulate"),
    [((3, 3), 1), ((4, 2, 1), 1), ((1, 1, 0), 1), ((4, 2), 2), ((2, 1), 4), ((0, 0), 2)],
    ids=str,
)
def test_shares_give_the_update_of_the_batch(shares, accumulate):
    """Whatever their sizes. Each process starts from other weights: those of the first are used."""
    found = together(len(shares), update, shares, accumulate)
    untouched = {**network().state_dict(), "loss": 0.0}
    expected = update(ALONE, (sum(shares),), 1) if sum(shares) else untouched
    for one in found:
        assert not isinstance(one, Exception), one
        torch.testing.assert_close(one, expected, rtol=1e-9, atol=1e-11)
        assert same(one, found[0])


@pytest.mark.parametrize("accumulate", [2, 3, 7, 9])
def test_parts_give_the_update_of_the_batch(accumulate):
    torch.testing.assert_close(update(ALONE, (7,), accumulate), update(ALONE, (7,), 1), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("graph", ["random", "td", "fine_tune"])
def test_wirings_and_masks_are_those_of_the_first_process(graph):
    model = "random" if graph == "random" else graph
    config = {"graph": model, **({"rho": 0.5} if graph == "td" else {})}
    first, second = together(2, spread, config)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def spread(world, config):
    torch.manual_seed(world.rank)
    model = build_model(load_config(APP, {**SMALL_GRAPH, **config})).train()
    before = model.graph.in_use().clone()
    Replicas(model, world)
    torch.manual_seed(0)  # what targeted dropout draws, all draw alike
    found = {"in use": model.graph.in_use().clone(), "weights": model.graph().detach(), **model.state_dict()}
    assert world.rank == 0 or config["graph"] == "fine_tune" or not torch.equal(before, found["in use"])
    return found


def settle(world):
    """State before and after choosing the order of exchanges."""
    torch.manual_seed(0)
    model = build_model(load_config(APP, SMALL_GRAPH)).train()
    model = synchronise_batch_norms(model, world)
    replicas = Replicas(model, world)
    states = []
    for _ in range(2):
        gradients = [parameter.grad for parameter in model.parameters()]
        states.append(copy.deepcopy([model.state_dict(), rng_state(), gradients]))
        replicas.settle(torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(world.rank)))
    return same(*states)


def test_settling_leaves_nothing_behind():
    assert together(2, settle) == [True, True]


def disagree(world, what):
    seed_everything(0)
    model = network()
    trainer = Trainer(
        model, torch.optim.SGD(model.parameters(), lr=0.1), lambda step: 0.1,
        train=OneBatch(*batch(2)), val=OneBatch(*batch(2)), num_epochs=1, topk=[1],
        device=torch.device("cpu"), log_interval=1, world=world,
    )  # fmt: skip
    if world.rank == 2 and what == "model":
        model.graph.weight.data[3, 4] += 1e-6
    if world.rank == 2 and what == "rng":
        torch.rand(1)
    wiring = [torch.eye(4) * (world.rank != 2 or what != "wirings")]
    saver = CheckpointSaver(None, lambda: wiring, {})
    saver.on_start(trainer)
    return "agreed"


def test_processes_that_agree_may_save():
    assert together(2, disagree, "nothing") == ["agreed"] * 2


@pytest.mark.parametrize("what", ["model", "wirings", "rng"])
def test_processes_that_differ_save_nothing(what):
    for error in together(3, disagree, what):
        assert isinstance(error, RunError)
        assert f"process 2 differs from process 0 in {what}" in str(error)
        assert "nothing was saved" in str(error)


def test_the_mean_of_shares_is_the_mean_of_the_batch():
    """The weight of a share, by itself: averaged over the processes it gives the batch's mean."""
    images, labels = batch(7)
    model = network()
    whole = F.cross_entropy(model(images), labels)
    replicas = Replicas(model, ALONE)
    parts = [F.cross_entropy(model(i), t) * len(t) / 7 for i, t, _ in replicas.parts(images, labels, 3)]
    torch.testing.assert_close(sum(parts), whole)


def compiled(world):
    model = network()
    compile_network(model, world.device, backend="aot_eager")
    images, labels = (part.split((3, 3))[world.rank] for part in batch(6))
    replicas = Replicas(model, world)
    F.cross_entropy(replicas(images), labels).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.slow
def test_a_compiled_network_is_shared_as_any_other():
    model = network()
    F.cross_entropy(model(batch(6)[0]), batch(6)[1]).backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    for found in together(2, compiled):
        assert not isinstance(found, Exception), found
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
