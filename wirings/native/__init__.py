"""Compact networks by C++ kernels: compiled at first use, one call runs the network."""

from wirings.native.build import load_kernels
from wirings.native.network import NativeNetwork

__all__ = ["NativeNetwork", "load_kernels"]
