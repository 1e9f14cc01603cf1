"""The names of wirings.profiling, for programs that import them from here."""

from wirings.profiling import Profile, as_table, profile

__all__ = ["Profile", "as_table", "profile"]
