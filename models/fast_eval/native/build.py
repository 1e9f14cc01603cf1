"""The names of wirings.native.build, for programs that import them from here."""

from wirings.native.build import KERNELS, compiler, load_kernels

__all__ = ["KERNELS", "compiler", "load_kernels"]
