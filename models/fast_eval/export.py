"""The names of wirings.exporting, for programs that import them from here."""

from wirings.exporting import ENDINGS, edge_arrays, export

__all__ = ["ENDINGS", "edge_arrays", "export"]
