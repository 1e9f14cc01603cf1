"""Initialization from checkpoints: the wiring of one (`use_graph`), the weights of another (`use_init`)."""

from __future__ import annotations

import logging

from torch import nn

from genutil.checkpoint import apply_weights, read_checkpoint
from genutil.errors import CheckpointError, ConfigError
from models.graphs.edges import EdgeRule, FixedTopEdges

_log = logging.getLogger(__name__)


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
        if any(isinstance(rule, FixedTopEdges) for rule in rules.values()):
            raise ConfigError(
                "graph: fine_tune takes the strongest edges of a trained network; name its checkpoint with "
                "use_graph, or resume with --resume FILE"
            )
        return
    optional = [f"{name}.{key}" for name, rule in rules.items() for key in rule.optional_buffers]
    _apply("use_graph", use_graph, model, optional)
    for rule in rules.values():
        rule.freeze_wiring()
    _log.info("loaded the weights%s of %s", " and the wiring" if rules else "", use_graph)
    if use_init is not None:
        buffers = [
            f"{name}.{key}" for name, rule in rules.items() for key in rule.state_dict() if key != "weight"
        ]
        wiring = {name: value.clone() for name, value in model.state_dict().items() if name in buffers}
        _apply("use_init", use_init, model, buffers)
        model.load_state_dict(wiring, strict=False)
        _log.info("loaded the weights of %s", use_init)


def _apply(key: str, path: str, model: nn.Module, optional: list[str]) -> None:
    try:
        apply_weights(read_checkpoint(path), model, path, optional=optional)
    except CheckpointError as error:
        raise CheckpointError(f"{key}: {error}") from error
