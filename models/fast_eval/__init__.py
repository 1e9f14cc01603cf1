"""Fast evaluation, now in wirings.compacting: the names that programs import from here."""

from models.fast_eval.compact import compact, engines_of

__all__ = ["compact", "engines_of"]
