"""The names of wirings.engines.triton, for programs that import them from here."""

from wirings.engines.triton import FastestProduct, TritonProduct

__all__ = ["FastestProduct", "TritonProduct"]
