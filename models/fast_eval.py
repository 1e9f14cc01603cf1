"""The names of wirings.compacting, for programs that import them from here."""

from wirings.compacting import compact, engines_of

__all__ = ["compact", "engines_of"]
