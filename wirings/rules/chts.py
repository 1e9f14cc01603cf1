"""`chts`: edges grow where the wiring itself predicts them, without a gradient.

Source: Zhang et al., "Brain network science modelling of sparse neural networks enables Transformers and LLMs
to perform as fully connected", NeurIPS 2025 (Cannistraci-Hebb training, soft rule), after Zhang et al., ICLR
2024.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wirings.densities import DensitySchedule
from wirings.drop_and_grow import DropAndGrow
from wirings.errors import WiringError
from wirings.node_matrix import NodeMatrix
from wirings.rules.base import EdgeScope, PotentialEdges, Step
from wirings.topk import sample_without_replacement, top_mask_of


class PredictedEdges(DropAndGrow):
    """`graph: chts`: as `rigl`, but edges stay in use at random, strong ones with a higher probability, and
    the edges grow that the wiring predicts by its paths of length 3 (CH2-L3n).

    An edge in use is kept with a probability proportional to |w|^T, where T rises linearly from
    `temperature[0]` to `temperature[1]`. In a graph, nodes that then have no edge on one of their sides lose
    those on the other. The score of an absent edge from u to v is the sum over the sources z of v, and the
    targets z of u, of (1 + c) / (1 + e): c are the neighbours that z shares with u (or v), and e its others;
    z without shared neighbours do not count. Equal scores are in random order.

    Args:
        potential, num_edges, schedule, edge_scope, update_interval, drop_fraction, last_update: see
            DropAndGrow.
        temperature: first and last T.

    Raises:
        WiringError: an option is out of range.
    """

    reads_all_gradients = False

    def __init__(
        self,
        potential: PotentialEdges,
        num_edges: int,
        schedule: DensitySchedule | None = None,
        edge_scope: EdgeScope = "all",
        update_interval: int = 100,
        drop_fraction: float | None = None,
        last_update: float = 0.75,
        temperature: tuple[float, float] = (1.0, 9.0),
    ) -> None:
        super().__init__(
            potential, num_edges, schedule, edge_scope, update_interval, drop_fraction, last_update
        )
        if min(temperature) < 0:
            raise WiringError(f"temperature must be at least 0, got {tuple(temperature)}")
        self.temperature = tuple(temperature)
        self.nodes = NodeMatrix(potential)

    def keep(self, in_use: Tensor, count: int, step: Step) -> Tensor:
        first, last = self.temperature
        power = first + (last - first) * step.index / max(step.total - 1, 1)
        relative = self.weight.abs().double() / self.weight.abs().amax().clamp_min(1e-30)
        kept = sample_without_replacement(relative**power, in_use, count)
        return self._without_dead_ends(kept) if self.nodes.has_hidden else kept

    def grow(self, kept: Tensor, candidates: Tensor, count: int) -> Tensor:
        scores = predicted_edges(kept.flatten(1)).view(self.weight.shape)
        noise = torch.rand(scores.shape, dtype=scores.dtype).to(scores.device)
        return top_mask_of(scores + 1e-9 * scores.amax().clamp_min(1) * noise, candidates, count)

    def _without_dead_ends(self, kept: Tensor) -> Tensor:
        """The edges that are left when inner nodes without incoming or outgoing edges lose the others, until
        there are no such nodes.
        """
        matrix = self.nodes.expand(kept)
        inputs, outputs = self.potential.num_inputs, self.potential.num_outputs
        number = torch.arange(len(matrix), device=matrix.device)
        enters, leaves = number < inputs, number >= len(matrix) - outputs
        while True:
            live = (matrix.any(1) | enters) & (matrix.any(0) | leaves)
            pruned = matrix & live.unsqueeze(1) & live
            if torch.equal(pruned, matrix):
                return self.nodes.reduce(matrix)
            matrix = pruned


def predicted_edges(mask: Tensor) -> Tensor:
    """CH2-L3n scores of all edges between two sides, float64 (targets, sources).

    Args:
        mask: boolean (targets, sources).
    """
    edges = mask.double()
    return edges @ _similarity(edges.T) + _similarity(edges).T @ edges


def _similarity(edges: Tensor) -> Tensor:
    """(1 + c) / (1 + e) of nodes z (rows) and u (columns) of one side: c are the neighbours that they share,
    e the others of z. 0 if they share none, or are the same node.

    Args:
        edges: (nodes of one side, nodes of the other side), zeros and ones.
    """
    shared = edges @ edges.T
    others = edges.sum(1, keepdim=True) - shared
    similarity = torch.where(shared > 0, (1 + shared) / (1 + others), 0)
    return similarity.fill_diagonal_(0)
