"""A trained wiring made small and fast: dead neurons removed, the rest run by an engine of choice."""

from models.fast_eval.compact import compact, engines_of

__all__ = ["compact", "engines_of"]
