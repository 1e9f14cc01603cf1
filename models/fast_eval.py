"""The function `compact` of wirings.compacting, for programs that import it from here."""

from wirings.compacting import compact, engines_of

__all__ = ["compact", "engines_of"]
