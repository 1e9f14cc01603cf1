"""The names of wirings.topk and wirings.selection, for programs that import them from here."""

from wirings.selection import EdgeSelection, straight_through
from wirings.topk import Selector, choose_top_edges, num_kept, top_mask, top_mask_by_row

__all__ = [
    "EdgeSelection",
    "Selector",
    "choose_top_edges",
    "num_kept",
    "straight_through",
    "top_mask",
    "top_mask_by_row",
]
