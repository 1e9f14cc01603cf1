"""Starting from other networks: the wiring of one (`use_graph`), the weights of another (`use_init`)."""

from __future__ import annotations

import logging

from torch import nn

from genutil.checkpoint import apply_weights, read_checkpoint
from genutil.errors import CheckpointError, ConfigError
from models.graphs.edges import EdgeRule, FixedTopEdges

_log = logging.getLogger(__name__)


def load_wiring_and_weights(model: nn.Module, use_graph: str | None, use_init: str | None) -> None:
    """Load the weights of `use_graph` and fix the wiring by them; then take the weights of `use_init`.

    With `use_graph` alone this is where fine tuning starts; with both, a one-shot lottery ticket (Frankle and
    Carbin, arXiv 1803.03635): the wiring that training found, with the weights that it started from.

    Args:
        model: the network, as it was built.
        use_graph: checkpoint of a trained network; None: the network stays as it is.
        use_init: checkpoint of a network before its training, or None.

    Raises:
        ConfigError: the network has a fixed wiring that no file gives.
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
        rule.fix_wiring()
    _log.info("took the weights%s of %s", " and the wiring" if rules else "", use_graph)
    if use_init is not None:
        beside = [
            f"{name}.{key}" for name, rule in rules.items() for key in rule.state_dict() if key != "weight"
        ]
        wiring = {name: value.clone() for name, value in model.state_dict().items() if name in beside}
        _apply("use_init", use_init, model, beside)
        model.load_state_dict(wiring, strict=False)
        _log.info("took the weights of %s", use_init)


def _apply(key: str, path: str, model: nn.Module, optional: list[str]) -> None:
    try:
        apply_weights(read_checkpoint(path), model, path, optional=optional)
    except CheckpointError as error:
        raise CheckpointError(f"{key}: {error}") from error
