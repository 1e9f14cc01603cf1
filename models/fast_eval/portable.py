"""The same names as in wirings.portable, for programs that import them from here."""

from wirings.portable import PortableNetwork, dense_weight

__all__ = ["PortableNetwork", "dense_weight"]
