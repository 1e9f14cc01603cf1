"""Graphs with cycles: all nodes are updated together, in steps or by the solver of an equation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.fast_eval.network import MakeProduct, RunnableStage, depthwise, fixed
from models.fast_eval.plan import ByNode, some_nodes
from models.graphs.edges import EdgeRule

Update = Callable[[Tensor], Tensor]


class CycleStage(RunnableStage):
    """The nodes that are left of a graph with cycles. Without constants: a norm's output is never one for all
    time, so every node that the logits depend on stays.

    Args:
        rule, conv, norm: edges, filters and norm of all nodes.
        nodes: numbers of the nodes that are left, rising; the outputs are among them.
        num_outputs: nodes that leave.
        make: makes the product of an engine.
        run: from the update of all nodes and their first states to the last ones.
    """

    def __init__(
        self,
        rule: EdgeRule,
        conv: nn.Conv2d,
        norm: nn.InstanceNorm2d,
        nodes: Tensor,
        num_outputs: int,
        make: MakeProduct,
        run: Callable[[Update, Tensor], Tensor],
    ) -> None:
        super().__init__()
        weight: Tensor = rule().detach().flatten(1)
        self.product = make(weight[nodes][:, nodes])
        self.filters = fixed(conv.weight[nodes])
        self.norm = ByNode(some_nodes(norm, nodes))
        self.num_outputs, self.run = num_outputs, run

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
        return maps


@dataclass(frozen=True)
class Repeat:
    """Runs a graph in discrete time, so many times."""

    times: int

    def __call__(self, update: Update, states: Tensor) -> Tensor:
        for _ in range(self.times):
            states = update(states)
        return states


def nodes_read(in_use: Tensor, num_outputs: int, steps: int) -> Tensor:
    """Numbers of the nodes whose states some step reads, back from the last `num_outputs` nodes; rising.

    Args:
        in_use: boolean (nodes, nodes), targets by sources.
        num_outputs: nodes that leave.
        steps: how often the states are updated.
    """
    edges = in_use.cpu()
    read = torch.zeros(len(edges), dtype=torch.bool)
    read[-num_outputs:] = True
    for _ in range(steps):
        read = read | edges[read].any(0)
    return read.nonzero().flatten().to(in_use.device)
