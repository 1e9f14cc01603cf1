"""The names of wirings.compact_network, for programs that import them from here."""

from wirings.compact_network import CompactHead, CompactNetwork, CompactStage, ConvStem
from wirings.wrappers import EvaluationOnly

__all__ = ["CompactHead", "CompactNetwork", "CompactStage", "ConvStem", "EvaluationOnly"]
