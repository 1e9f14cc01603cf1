"""The names of wirings.engines.dense, for programs that import them from here."""

from wirings.engines.dense import DenseProduct

__all__ = ["DenseProduct"]
