"""Graphs with cycles: all nodes are updated together, in steps or by the solver of an equation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wirings.compact_network import (
    CompactHead,
    CompactNetwork,
    MakeProduct,
    ModuleStem,
    RunnableStage,
    fixed,
)
from wirings.layout import depthwise
from wirings.plan import ByNode, as_affine, check_cycle
from wirings.structure import CyclicStructure


class CycleStage(RunnableStage):
    """The remaining nodes of a graph with cycles. There are no constants: states change in each step, so
    every node that the logits depend on remains.

    Args:
        structure: of the network.
        nodes: indices of the remaining nodes, ascending; the outputs are among them.
        make: makes the product of an engine.
    """

    def __init__(self, structure: CyclicStructure, nodes: Tensor, make: MakeProduct) -> None:
        super().__init__()
        weight = structure.rule().detach().flatten(1)
        affine = as_affine(structure.norm, weight, len(weight)).select(nodes)
        self.product = make(weight[nodes][:, nodes] * affine.scale.unsqueeze(1))
        self.filters = fixed(structure.filters[nodes])
        self.shift = fixed(affine.shift.view(-1, 1, 1, 1)) if affine.function is None else None
        self.norm = nn.Identity() if affine.function is None else ByNode(affine.function)
        self.num_outputs, self.run = structure.num_outputs, structure.run

    def constants(self, entering: Tensor) -> tuple[list[Tensor], Tensor]:
        return [], entering.new_empty(0, *entering.shape[1:])

    def forward(self, entered: Tensor, biases: list[Tensor], following: RunnableStage | None) -> Tensor:
        states = entered.new_zeros(len(self.filters), *entered.shape[1:])
        states[: len(entered)] = entered
        leaving = self.run(self._update, states)[-self.num_outputs :]
        return leaving if following is None else following.enter(leaving)

    def _update(self, states: Tensor) -> Tensor:
        sources = depthwise(F.relu(states), self.filters, stride=1)
        maps: Tensor = self.norm(self.product(sources.flatten(1)).view(states.shape))
        return maps if self.shift is None else maps + self.shift


def compact_cycle(structure: CyclicStructure, make: MakeProduct) -> CompactNetwork:
    """The network with the nodes that an update reads; in continuous time with all nodes.

    Args:
        structure: of a network in evaluation mode.
        make: makes the product of an engine.
    """
    check_cycle(structure)
    rule, steps = structure.rule, structure.replacements
    device = rule.weight.device
    if steps is None:
        nodes = torch.arange(len(rule.weight), device=device)
    else:
        nodes = nodes_read(rule.in_use().flatten(1), structure.num_outputs, steps)
    stage = CycleStage(structure, nodes, make)
    stem = ModuleStem(structure.stem, None, nodes[nodes < structure.num_inputs])
    features = torch.arange(structure.num_outputs, device=device)
    head = CompactHead(structure.classifier, features, features[:0], structure.pool)
    return CompactNetwork(stem, [stage], head)


def nodes_read(in_use: Tensor, num_outputs: int, steps: int) -> Tensor:
    """Indices of the nodes whose states a step reads, back from the last `num_outputs` nodes; ascending.

    Args:
        in_use: boolean (nodes, nodes), targets by sources.
        num_outputs: nodes that leave.
        steps: number of updates of the states.
    """
    edges = in_use.cpu()
    read = torch.zeros(len(edges), dtype=torch.bool)
    read[-num_outputs:] = True
    for _ in range(steps):
        read = read | edges[read].any(0)
    return read.nonzero().flatten().to(in_use.device)
