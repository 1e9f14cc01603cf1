"""State of a training: round trips, and checkpoints whose optimizer has other names, orders or settings."""

import copy

import pytest
import torch
from torch import nn

from genutil.exceptions import CheckpointError, NotFiniteError
from genutil.runs.checkpoint_folder import CheckpointFolder
from genutil.seeding import rng_state, seed_everything
from tests.helpers.equality import same
from tests.tiny_data import TinyBatches
from trainers.callback_base import Callback
from trainers.checkpointing import CheckpointSaver, resumable_state
from trainers.metrics import Meter
from trainers.optimizers import load_optimizer_state
from trainers.trainer import Trainer


def make_trainer(seed, *callbacks):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train, val = TinyBatches(22, 8, 4, 5, seed=0), TinyBatches(10, 4, 4, 5, seed=0)
    return Trainer(
        model, optimizer, lambda step: 0.1 / (1 + step), train, val, num_epochs=2, topk=[1], log_interval=1,
        callbacks=callbacks,
    )  # fmt: skip


def take_steps(trainer, count):
    trainer.model.train()
    for images, labels in list(trainer.train.batches(trainer.epoch, trainer.batch))[:count]:
        trainer.train_step(images, labels)


def test_a_state_within_an_epoch_makes_the_round_trip():
    first, second = make_trainer(0), make_trainer(1)
    take_steps(first, 2)
    state = copy.deepcopy(first.state_dict())
    second.load_state_dict(copy.deepcopy(state))  # torch takes momenta without a copy
    assert same(second.state_dict(), state)
    assert (second.epoch, second.batch, second.step, second.lr) == (0, 2, 2, 0.05)
    second.fit()
    end = copy.deepcopy(second.state_dict())
    first.load_state_dict(state)  # random numbers, too, are those of the state again
    first.fit()
    assert same(first.state_dict(), end)
    assert end["last_epoch"] == 1


class KeepStates(Callback):
    """Keeps the state of each epoch's end."""

    def __init__(self):
        self.states = []

    def on_epoch_end(self, trainer):
        self.states.append(copy.deepcopy(trainer.state_dict()))


def test_a_state_after_an_epoch_makes_the_round_trip():
    keep, again = KeepStates(), KeepStates()
    make_trainer(0, keep).fit()
    resumed = make_trainer(1, again)
    resumed.load_state_dict(keep.states[0])
    assert (resumed.epoch, resumed.batch, resumed.step) == (1, 0, 3)
    resumed.fit()
    assert same(again.states, keep.states[1:])


class Reads(dict):
    """A dictionary that records the keys that are read."""

    def __init__(self, values):
        super().__init__(
            {key: Reads(value) if type(value) is dict else value for key, value in values.items()}
        )
        self.keys_read = set()

    def __getitem__(self, key):
        self.keys_read.add(key)
        return super().__getitem__(key)


def test_every_key_is_read():
    trainer = make_trainer(0)
    take_steps(trainer, 1)
    state = Reads(trainer.state_dict())
    trainer.load_state_dict(state)
    assert state.keys() - state.keys_read == {"optimizer_names"}  # read by resumable_state
    assert state["scheduler"].keys() == state["scheduler"].keys_read
    assert state["epoch_progress"].keys() - state["epoch_progress"].keys_read == {"batches"}  # likewise


class CountSteps(Callback):
    """A callback with state."""

    def __init__(self):
        self.steps = 0

    def on_step(self, trainer):
        self.steps += 1

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


def test_states_of_callbacks_are_part_of_the_state():
    keep, counter = KeepStates(), CountSteps()
    make_trainer(0, counter, keep).fit()
    assert [state["callbacks"] for state in keep.states] == [
        {"tests.trainers.test_state_dict:CountSteps": {"steps": steps}} for steps in (3, 6)
    ]
    resumed_counter = CountSteps()
    again = make_trainer(1, Callback(), resumed_counter)
    again.load_state_dict(keep.states[0])
    again.fit()
    assert resumed_counter.steps == counter.steps == 6
    without = make_trainer(1, CountSteps())
    without.load_state_dict({**keep.states[0], "callbacks": {}})  # of an earlier version


class TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, values):
        return self.second(self.first(values))


def trained(model, **settings):
    """An optimizer with momenta."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, **settings)
    model(torch.randn(4, 3)).square().sum().backward()
    optimizer.step()
    return optimizer


def resumed(model, optimizer, saved, weights=None):
    """The optimizer with the state of a published file."""
    content = {"model": weights or model.state_dict(), "optimizer": saved, "last_epoch": 0, "iter": 4}
    state = resumable_state(content, "x.pt", {}, model, optimizer, steps_per_epoch=4, topk=[1])
    load_optimizer_state(optimizer, state["optimizer"])
    return state


def test_momentum_is_matched_by_name():
    """A network that was written in another order has its parameters in that order."""
    torch.manual_seed(0)
    model = TwoLayers()
    saved = trained(model).state_dict()
    names = ["second.weight", "second.bias", "first.weight", "first.bias"]
    positions = [[name for name, _ in model.named_parameters()].index(name) for name in names]
    foreign = copy.deepcopy(saved)
    foreign["state"] = {number: saved["state"][position] for number, position in enumerate(positions)}
    weights = {f"module.{name}": model.state_dict()[name] for name in names}
    fresh = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    state = resumed(model, fresh, foreign, weights)
    assert state["model"].keys() == model.state_dict().keys()
    for number, parameter in enumerate(model.parameters()):
        assert torch.equal(
            fresh.state[parameter]["momentum_buffer"], saved["state"][number]["momentum_buffer"]
        )


def test_settings_are_those_of_the_experiment():
    model = TwoLayers()
    saved = trained(model, weight_decay=0.5).state_dict()
    for key in ("foreach", "fused", "maximize", "differentiable"):  # torch 1.0 knew none of them
        del saved["param_groups"][0][key]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.8, weight_decay=0.1, foreach=True)
    resumed(model, optimizer, saved)
    (group,) = optimizer.param_groups
    assert (group["momentum"], group["weight_decay"], group["foreach"]) == (0.8, 0.1, True)
    optimizer.step()


def test_a_published_state_gets_the_missing_keys():
    model = TwoLayers()
    optimizer = trained(model)
    state = resumed(model, optimizer, optimizer.state_dict())
    assert (state["last_epoch"], state["iter"], state["best_val"]) == (0, 4, -1.0)
    assert state["epoch_progress"] == {"batch": 0, "batches": 4, "meter": None}
    assert (state["scaler"], state["scheduler"]) == (None, {"lr": 0.1})
    assert torch.equal(state["rng"]["torch"], torch.get_rng_state())


def test_reading_a_state_changes_no_random_numbers():
    model = TwoLayers()
    optimizer = trained(model)
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": rng_state()}
    seed_everything(5)
    before = rng_state()
    state = resumable_state(
        {**content, "last_epoch": 0}, "x.pt", {}, model, optimizer, steps_per_epoch=4, topk=[1]
    )
    assert same(rng_state(), before)
    assert same(state["rng"], content["rng"]) and not same(state["rng"], before)


def test_momentum_of_another_shape_is_refused():
    model = TwoLayers()
    saved = trained(model).state_dict()
    saved["state"][1]["momentum_buffer"] = torch.zeros(4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with pytest.raises(CheckpointError, match=r"x\.pt: its .*the momentum of first\.bias has shape \[4\]"):
        resumed(model, optimizer, saved)


def test_metrics_of_other_accuracies_are_refused_within_an_epoch():
    trainer, other = make_trainer(0), make_trainer(0)
    take_steps(trainer, 1)
    other.meter = Meter([1, 5], "cpu")
    with pytest.raises(ValueError, match="those of another topk"):
        other.load_state_dict(copy.deepcopy(trainer.state_dict()))


class SpoilWeights(Callback):
    """Makes a weight NaN after the last step of an epoch, which no loss shows any more."""

    def on_step(self, trainer):
        if trainer.batch == len(trainer.train):
            next(trainer.model.parameters()).data.fill_(float("nan"))


def test_a_diverged_last_step_is_not_saved_without_validation(tmp_path):
    folder = CheckpointFolder(tmp_path / "run")
    saver = CheckpointSaver(folder, wirings=list, metadata={})
    trainer = make_trainer(0, SpoilWeights(), saver)
    trainer.val = None
    with pytest.raises(NotFiniteError, match="is not finite"):
        trainer.fit()
    assert not (tmp_path / "run" / "last.pt").exists()
