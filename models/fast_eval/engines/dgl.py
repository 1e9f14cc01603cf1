"""The names of wirings.engines.dgl, for programs that import them from here."""

from wirings.engines.dgl import DGLProduct

__all__ = ["DGLProduct"]
