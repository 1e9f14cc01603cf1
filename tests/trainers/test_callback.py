"""Callbacks: the list forwards every event, and wrappers call functions at their intervals."""

import inspect

import pytest

from trainers.callback_base import Callback, CallbackList, EveryEpochs, EverySteps, acts_on_gradients
from trainers.wiring_recorder import DoublingSteps

EVENTS = [name for name in vars(Callback) if name.startswith(("on_", "before_"))]
EVENTS.remove("on_all_processes")


class Calls(Callback):
    """Keeps the events and their arguments."""

    def __init__(self):
        self.calls = []


for _event in EVENTS:
    setattr(Calls, _event, lambda self, *arguments, event=_event: self.calls.append((event, *arguments)))


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_reaches_all_callbacks(event):
    arguments = [object() for _ in inspect.signature(getattr(Callback, event)).parameters][1:]
    callbacks = Calls(), Calls()
    getattr(CallbackList(callbacks), event)(*arguments)
    assert [callback.calls for callback in callbacks] == [[(event, *arguments)]] * 2


def test_a_list_acts_on_gradients_if_one_callback_does():
    assert len(EVENTS) == 11
    assert not acts_on_gradients(EverySteps)
    assert not CallbackList([Callback(), EverySteps(1, print)]).acts_on_gradients
    assert CallbackList([Callback(), Calls()]).acts_on_gradients


class Progress:
    """What wrappers read of a training of 3 epochs with 5 steps."""

    num_epochs, train = 3, range(5)

    def __init__(self, epoch, batch):
        self.epoch, self.batch, self.step = epoch, batch, 5 * epoch + batch


@pytest.mark.parametrize(
    ("wrapper", "steps"),
    [
        (lambda function: EverySteps(1, function), [1, 2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 14]),
        (lambda function: EverySteps(4, function), [4, 8, 12]),
        (lambda function: EverySteps(5, function), []),
        (DoublingSteps, [1, 2, 4]),
    ],
)
def test_steps(wrapper, steps):
    """The last step of an epoch is left to on_epoch_end."""
    seen = []
    callback = wrapper(lambda trainer: seen.append(trainer.step))
    for epoch in range(3):
        for batch in range(1, 6):
            callback.on_step(Progress(epoch, batch))
    assert seen == steps


@pytest.mark.parametrize(("interval", "epochs"), [(1, [0, 1, 2]), (2, [0, 2]), (9, [0, 2])])
def test_epochs(interval, epochs):
    """As the numbers of checkpoint files; the last epoch is always among them."""
    seen = []
    callback = EveryEpochs(interval, lambda trainer: seen.append(trainer.epoch))
    for epoch in range(3):
        callback.on_epoch_end(Progress(epoch, 5))
    assert seen == epochs
