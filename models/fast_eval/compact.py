"""The names of wirings.compacting, for programs that import them from here."""

from wirings.compacting import NoCompactForm, compact, engines_of

__all__ = ["NoCompactForm", "compact", "engines_of"]
