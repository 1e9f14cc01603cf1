"""The names of wirings.structure, for programs that import them from here."""

from wirings.structure import GraphLayer as WiredLayer
from wirings.structure import LayerComplexity, num_parameters, wired_layers

__all__ = ["LayerComplexity", "WiredLayer", "num_parameters", "wired_layers"]
