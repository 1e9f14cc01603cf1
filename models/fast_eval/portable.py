"""The names of wirings.portable, for programs that import them from here."""

from wirings.compact_network import dense_weight
from wirings.portable import PortableNetwork

__all__ = ["PortableNetwork", "dense_weight"]
