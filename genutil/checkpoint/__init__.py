"""Checkpoint files of trainings: names, keys, writing with a checksum, reading, also of published files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genutil.checkpoint.serialization import (
        CheckpointInfo as CheckpointInfo,
    )
    from genutil.checkpoint.serialization import (
        apply_weights as apply_weights,
    )
    from genutil.checkpoint.serialization import (
        load_weights as load_weights,
    )
    from genutil.checkpoint.serialization import (
        read_checkpoint as read_checkpoint,
    )
    from genutil.checkpoint.serialization import (
        save_checkpoint as save_checkpoint,
    )

__all__ = ["CheckpointInfo", "apply_weights", "load_weights", "read_checkpoint", "save_checkpoint"]


def __getattr__(name: str) -> Any:
    """The functions of `serialization`, imported at their first use: the names of files need no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from genutil.checkpoint import serialization

    return getattr(serialization, name)
