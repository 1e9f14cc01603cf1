"""The native engine: networks as programs of C++ kernels, which are compiled at first use."""

from wirings.native.build import load_kernels
from wirings.native.network import NativeNetwork

__all__ = ["NativeNetwork", "load_kernels"]
