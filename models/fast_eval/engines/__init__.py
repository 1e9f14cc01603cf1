"""The names of wirings.engines, for programs that import them from here."""

from wirings.engines import ENGINES, FusedProduct, Product, SendingProduct, find_engine

__all__ = ["ENGINES", "FusedProduct", "Product", "SendingProduct", "find_engine"]
