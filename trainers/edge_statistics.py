"""Statistics of the wiring over a training: churn, explored edges, edges that the steps multiply."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from trainers.callback_base import Callback, Training
from wirings.errors import WiringError
from wirings.history import EdgeHistory
from wirings.wiring import Wiring

_log = logging.getLogger(__name__)


class EdgeStatistics(Callback):
    """Counts the edges of each step, and reads the wiring after each epoch.

    Every process of a run has one, so that metrics are equal.

    Args:
        wiring: of the network that is trained.
        observe: returns further metrics of an epoch.

    Attributes:
        history: of the wiring, over all starts of the run.
        images: number of training images of all epochs, each as often as it was used.
        is_complete: whether the history begins with the training; false after resuming from a checkpoint
            without one.
    """

    on_all_processes = True

    def __init__(self, wiring: Wiring, observe: Callable[[], Mapping[str, float]] = dict) -> None:
        self.history, self._observe = EdgeHistory(wiring), observe
        self.images, self.is_complete = 0, False

    def on_start(self, trainer: Training) -> None:
        if not self.history.updates:
            self.is_complete = trainer.step == 0
            self.history.update()

    def on_step(self, trainer: Training) -> None:
        self.history.count_step()

    def observe(self) -> dict[str, float]:
        """Metrics of an epoch, at its end: those of the network, and percentages of its edges."""
        self.history.update()
        return {**self._observe(), **self.percentages()}

    def percentages(self) -> dict[str, float]:
        """`edge_churn`: edges in use that were not in use an epoch before. `edges_explored`: readable edges
        that were in use before the training or after an epoch. In percent; empty without wired layers.
        """
        if not self.history.wiring.rules:
            return {}
        numbers = {"edge_churn": 100 * self.history.churn()["total"]}
        if self.is_complete:
            numbers["edges_explored"] = 100 * self.history.explored()["total"]
        return numbers

    def churn_of_layers(self) -> list[float]:
        """`edge_churn` of each wired layer, in percent."""
        return [100 * churn for name, churn in self.history.churn().items() if name != "total"]

    def on_metrics(self, trainer: Training, phase: str, metrics: dict[str, float]) -> None:
        if phase == "train":
            self.images += trainer.meter.images()

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history.state_dict(), "images": self.images, "is_complete": self.is_complete}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        try:
            self.history.load_state_dict(state["history"])
            self.images, self.is_complete = int(state["images"]), bool(state["is_complete"])
        except (AttributeError, LookupError, TypeError, ValueError, RuntimeError, WiringError) as error:
            reason = f"it lacks {error}" if isinstance(error, LookupError) else error
            _log.warning("the history of edges in the checkpoint is not continued (%s)", reason)
            self.history = EdgeHistory(self.history.wiring)
