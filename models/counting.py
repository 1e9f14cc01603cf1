"""The names of wirings.counting, for programs that import them from here."""

from wirings.counting import count_macs

__all__ = ["count_macs"]
