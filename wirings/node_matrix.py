"""Edges of a graph as a matrix of all its nodes, and paths through it."""

from __future__ import annotations

import torch
from torch import Tensor

from wirings.errors import WiringError
from wirings.rules.base import PotentialEdges


class NodeMatrix:
    """Where the edges of a graph's weight are in the square matrix of all nodes.

    The nodes are in the order of the graph: those that enter it first, those that leave it last. The weight
    of a whole graph has a row and a column for each node, and reads no edges to those that enter. That of a
    stage has no rows for those that enter, and no columns for those that leave.

    Args:
        potential: the potential edges.

    Attributes:
        is_graph: whether the weight is that of a graph or a stage; false for a layer.
        has_hidden: whether the graph has nodes that neither enter nor leave.
        num_nodes: number of nodes.
        first_row: node of the first row.
    """

    def __init__(self, potential: PotentialEdges) -> None:
        rows, columns, inputs = potential.num_targets, potential.num_sources, potential.num_inputs
        mask, outputs = potential.readable_mask, potential.num_outputs
        is_whole = rows == columns > inputs and (mask is None or not bool(mask[:inputs].any()))
        is_stage = rows - outputs == columns - inputs
        self.first_row = 0 if is_whole else inputs
        self.num_nodes = rows + self.first_row
        self.is_graph = potential.layer is None and (is_whole or is_stage)
        self.has_hidden = self.is_graph and columns > inputs
        self.potential = potential

    def expand(self, weight: Tensor) -> Tensor:
        """The (nodes, nodes) matrix of a weight, with zeros elsewhere.

        Args:
            weight: (targets, sources, …), one entry for each edge.
        """
        rows = weight.flatten(1)
        matrix = rows.new_zeros(self.num_nodes, self.num_nodes)
        matrix[self.first_row :, : rows.shape[1]] = rows
        return matrix

    def reduce(self, matrix: Tensor) -> Tensor:
        """The weight of a (nodes, nodes) matrix, (targets, sources, …)."""
        part = matrix[self.first_row :, : self.potential.num_sources]
        return part.reshape(self.potential.shape)

    def check_acyclic(self, rule: str) -> None:
        """Check that paths through the graph have an end: see `path_products`.

        Raises:
            WiringError: the forward pass may read edges in a circle, or this is not a graph.
        """
        mask = self.potential.readable_mask
        if self.is_graph and mask is not None:
            readable = self.expand(mask)
            if not bool((readable & ~self.late_columns(readable)).triu().any()):
                return
        raise WiringError(
            f"rule {rule} needs a graph without cycles, such as that of setting: static or of a MobileNet "
            "graph; choose another rule"
        )

    def late_columns(self, readable: Tensor) -> Tensor:
        """Boolean, (nodes): sources that only leaving nodes read.

        In a static graph, leaving nodes send too, and all of them may read each other: what they receive from
        such sources is not sent again.

        Args:
            readable: boolean (nodes, nodes).
        """
        return ~readable[: self.num_nodes - self.potential.num_outputs].any(0)


def path_products(matrix: Tensor, late: Tensor, num_inputs: int, num_outputs: int) -> tuple[Tensor, Tensor]:
    """Sums over all paths of the products of their weights: from the entering nodes to each source, and from
    each target to the end of the graph.

    Args:
        matrix: float64 (nodes, nodes), (targets, sources), at least 0; without the late columns, zero on and
            above the diagonal.
        late: boolean, (nodes): sources whose edges end the graph.
        num_inputs: nodes that enter; each has the sum 1 from the start.
        num_outputs: nodes that leave; each has the sum 1 to the end.

    Returns:
        The sums of the sources (nodes), and those of the targets (nodes, nodes): after an edge of a late
        source comes no other.
    """
    early = matrix * ~late
    steps = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device) - early
    start, leaves = torch.zeros_like(matrix[0]), torch.zeros_like(matrix[0])
    start[:num_inputs] = 1
    leaves[len(matrix) - num_outputs :] = 1
    end = leaves + (matrix - early).sum(0)
    forward = torch.linalg.solve_triangular(steps, start.unsqueeze(1), upper=False).squeeze(1)
    backward = torch.linalg.solve_triangular(steps.T, end.unsqueeze(1), upper=True)
    return forward, torch.where(late, leaves.unsqueeze(1), backward)
