"""Initialization from checkpoints: weights and wiring of `use_graph`, other weights of `use_init`."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from genutil.checkpoint import CheckpointInfo, apply_weights, read_checkpoint
from genutil.checkpoint.serialization import report_changes
from genutil.exceptions import CheckpointError, ConfigError
from wirings.rules.base import EdgeRule, RankedEdges
from wirings.weight_names import match_names

_log = logging.getLogger(__name__)


@runtime_checkable
class AdaptsWeights(Protocol):
    """A network that also takes weights of other forms."""

    def adapt_weights(
        self, weights: Mapping[str, Tensor], path: str, new_classifier: bool
    ) -> dict[str, Tensor]:
        """Convert the weights of a file to the names and shapes of this network.

        Args:
            weights: by the names of this network.
            path: the file, for messages.
            new_classifier: a classifier for another number of classes is ignored, and the network keeps its
                own; else it is an error.
        """
        ...


def apply_adapted_weights(
    checkpoint: Mapping[str, Any],
    model: nn.Module,
    path: str,
    optional: Collection[str] = (),
    new_classifier: bool = False,
) -> CheckpointInfo:
    """genutil.checkpoint.apply_weights, for networks that also take weights of other forms.

    Raises:
        CheckpointError: the weights do not fit.
    """
    if isinstance(model, AdaptsWeights):
        matched = match_names(checkpoint["model"], model.state_dict())
        report_changes(checkpoint, matched, path)
        weights = model.adapt_weights(matched.weights, path, new_classifier)
        checkpoint = {**checkpoint, "model": weights, "weights_under": None}
    return apply_weights(checkpoint, model, path, optional)


def load_wiring_and_weights(model: nn.Module, use_graph: str | None, use_init: str | None) -> None:
    """Load the weights of `use_graph` and freeze the wiring; then load the weights of `use_init`.

    `use_graph` alone is the start of fine tuning; both give a one-shot lottery ticket (Frankle and Carbin,
    arXiv 1803.03635): the wiring of the trained network with its initial weights.

    Args:
        model: the network, after construction.
        use_graph: checkpoint of a trained network; None: nothing is loaded.
        use_init: checkpoint of a network before its training, or None.

    Raises:
        ConfigError: the network has a frozen wiring, and no file has it.
        CheckpointError: a file cannot be read or does not fit the model.
    """
    rules = {name: module for name, module in model.named_modules() if isinstance(module, EdgeRule)}
    if use_graph is None:
        if any(rule.needs_trained_weights for rule in rules.values()):
            raise ConfigError(
                "this graph (fine_tune) takes the edges of a trained network; name its checkpoint with "
                "use_graph, or resume with --resume FILE"
            )
        return
    optional = [f"{name}.{key}" for name, rule in rules.items() for key in _optional_buffers(rule)]
    _load("use_graph", use_graph, model, optional)
    for rule in rules.values():
        rule.freeze_wiring()
        if isinstance(rule, RankedEdges) and rule.schedule is not None:
            rule.set_progress(0.0)  # a new training; a mask keeps the number of edges of the file
    is_fixed = any(rule.has_fixed_wiring for rule in rules.values())
    _log.info("loaded the weights%s of %s", " and the wiring" if is_fixed else "", use_graph)
    if use_init is not None:
        buffers = [
            f"{name}.{key}" for name, rule in rules.items() for key in rule.state_dict() if key != "weight"
        ]
        wiring = {name: value.clone() for name, value in model.state_dict().items() if name in buffers}
        _load("use_init", use_init, model, buffers)
        model.load_state_dict(wiring, strict=False)
        _log.info("loaded the weights of %s", use_init)


def _optional_buffers(rule: EdgeRule) -> tuple[str, ...]:
    """Buffers that a checkpoint of another rule may lack."""
    return (*rule.optional_buffers, *(("num_edges_now",) if rule.schedule is not None else ()))


def _load(key: str, path: str, model: nn.Module, optional: list[str]) -> None:
    try:
        apply_adapted_weights(read_checkpoint(path), model, path, optional, new_classifier=True)
    except CheckpointError as error:
        raise CheckpointError(f"{key}: {error}") from error
