"""The names of wirings.native, for programs that import them from here."""

from wirings.native import NativeNetwork, load_kernels

__all__ = ["NativeNetwork", "load_kernels"]
