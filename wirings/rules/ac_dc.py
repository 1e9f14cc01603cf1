"""`ac_dc`: alternating compressed and dense phases.

Source: Peste et al., "AC/DC: Alternating Compressed/DeCompressed Training of Deep Neural Networks", NeurIPS
2021.
"""

from __future__ import annotations

from typing import Any

import torch

from wirings.errors import WiringError
from wirings.rules.base import EdgeScope, MaskedEdges, PotentialEdges, Step
from wirings.topk import top_mask_of


class AlternatingEdges(MaskedEdges):
    """`graph: ac_dc`: all edges at first; then the strongest edges and all edges alternate. In a compressed
    phase the wiring is fixed; edges that were dropped start again at zero in the next dense phase.

    By default as published for 100 epochs: dense for a tenth of the training, phases of a twentieth until
    three quarters, dense for a tenth, compressed to the end.

    Args:
        potential: the potential edges.
        num_edges: number of edges in use in the compressed phases, so also at the end.
        edge_scope: see EdgeScope.
        first_phase: fraction of the training before the first compressed phase.
        phase: duration of the phases that follow, as a fraction of the training.
        last_phases: fractions of the training at which the last dense and the last compressed phase begin.

    Raises:
        WiringError: the phases are not in this order within the training.
    """

    optional_buffers = ()
    has_exact_count = True

    def __init__(
        self,
        potential: PotentialEdges,
        num_edges: int,
        edge_scope: EdgeScope = "all",
        first_phase: float = 0.1,
        phase: float = 0.05,
        last_phases: tuple[float, float] = (0.75, 0.85),
    ) -> None:
        super().__init__(potential, num_edges, None, edge_scope)
        if not (0 <= first_phase <= last_phases[0] <= last_phases[1] <= 1 and phase > 0):
            raise WiringError(
                "phases must be 0 <= first_phase <= last_phases <= 1 and phase > 0, "
                f"got first_phase {first_phase}, phase {phase}, last_phases {tuple(last_phases)}"
            )
        self.first_phase, self.phase, self.last_phases = first_phase, phase, tuple(last_phases)
        self.num_edges = self.num_potential
        self.mask.copy_(self.scope())
        if self.is_compressed(0.0):
            self._compress()

    def is_compressed(self, progress: float) -> bool:
        """Whether only `budget` edges are in use.

        Args:
            progress: fraction of the training's steps that are done, 0..1.
        """
        dense, compressed = self.last_phases
        if progress >= dense:
            return progress >= compressed
        if progress < self.first_phase:
            return False
        # Sums of fractions such as 0.1 + 3 · 0.05 are rounded: a phase begins a little earlier at most.
        return int((progress - self.first_phase) / self.phase + 1e-9) % 2 == 0

    @torch.no_grad()
    def after_backward(self, step: Step) -> None:
        """Begin the phase of the next step. Its wiring is that of the weights before this step's update."""
        is_compressed = self.is_compressed((step.index + 1) / step.total)
        if is_compressed and self.num_edges > self.budget:
            self._compress()
        elif not is_compressed and self.num_edges == self.budget:
            unused = self.mask == 0
            self.weight.masked_fill_(unused, 0)
            step.reset_optimizer_state(self.weight, unused)
            self.mask.copy_(self.scope())
            self.num_edges = self.num_potential

    def _compress(self) -> None:
        self.mask.copy_(top_mask_of(self.weight.abs(), self.scope(), self.budget))
        self.num_edges = self.budget

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.num_edges = int((self.mask != 0).sum())
