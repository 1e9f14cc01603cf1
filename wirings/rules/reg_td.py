"""`reg_td`: targeted dropout with the weak edges counted in each output channel (row).

Source: Gomez et al., "Learning Sparse Networks Using Targeted Dropout", arXiv 1905.13678.
"""

from __future__ import annotations

from wirings.rules.td import TargetedDropout
from wirings.selection import EdgeSelection
from wirings.topk import num_kept, top_mask_by_row


class TargetedDropoutByRow(TargetedDropout):
    """`graph: reg_td`: targeted dropout with the weak edges counted in each output channel (row)."""

    ranks_all_layers = False
    has_exact_count = False

    def select(self) -> EdgeSelection:
        count = self.num_edges // len(self.weight)
        if self.schedule is None:
            count = num_kept(self.weight[0].numel(), self.prune_rate)
        mask = top_mask_by_row(self.weight, count)
        return EdgeSelection.from_mask(mask, count * len(self.weight))
