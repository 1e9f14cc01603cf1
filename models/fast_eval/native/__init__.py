"""Compact networks by kernels of our own: compiled at first use, one call for the whole network."""

from models.fast_eval.native.build import load_kernels
from models.fast_eval.native.network import NativeNetwork

__all__ = ["NativeNetwork", "load_kernels"]
