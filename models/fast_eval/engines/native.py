"""The names of wirings.engines.native, for programs that import them from here."""

from wirings.engines.native import NativeProduct

__all__ = ["NativeProduct"]
