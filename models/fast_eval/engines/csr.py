"""The names of wirings.engines.csr, for programs that import them from here."""

from wirings.engines.csr import CSRProduct, compressed_rows

__all__ = ["CSRProduct", "compressed_rows"]
