"""History of a wiring over a training: which edges have been in use, and how many each step multiplied.

history = wirings.EdgeHistory(wiring)
history.update()
for step, (images, labels) in enumerate(batches):
    ...                                        # a training step
    history.count_step()
    if step % 100 == 99:
        history.update()
print(history.churn()["total"], history.explored()["total"])
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wirings.errors import WiringError
from wirings.structure import LayerComplexity
from wirings.wiring import Wiring


@dataclass(frozen=True)
class TrainingMacs:
    """Multiply-accumulates of a training step for one image, as the mean over all steps.

    A rule needs those of its edges that the forward pass reads: an implementation may compute more, such as a
    dense convolution with zeros. Elementwise operations, norms and the selection itself are not counted.

    Attributes:
        forward: of the forward pass, for the edges in use.
        nodes: of the gradient of the nodes, for the same edges.
        weights: of the gradient of the weights: of all potential edges, or of those alone that need one.
    """

    forward: float
    nodes: float
    weights: float

    @property
    def total(self) -> float:
        return self.forward + self.nodes + self.weights


class EdgeHistory:
    """Which edges of a wiring have been in use, and the mean number of edges that a step multiplies.

    The wiring is read by `update` alone, so an edge that is in use only between two updates is not seen.

    Args:
        wiring: of the network that is trained.

    Attributes:
        steps: number of counted steps.
        updates: number of updates.
    """

    def __init__(self, wiring: Wiring) -> None:
        self.wiring = wiring
        self.steps = self.updates = 0
        self._steps_of_edges = {name: [0, 0] for name in wiring.rules}
        self._explored: dict[str, Tensor] = {}
        self._last: dict[str, Tensor] = {}
        self._new: dict[str, int] = {}
        self._shares = {name: 1.0 for name in wiring.rules}
        self._next_step = self._edges_of_next_step()

    def count_step(self) -> None:
        """Count the edges of the training step that was just made. It does not wait for the device.

        Edges that the forward pass does not read are not counted: their share is that of the last update, and
        so is the number of edges where a rule does not promise it.
        """
        self.steps += 1
        for name, (used, trained) in self._next_step.items():
            sums = self._steps_of_edges[name]
            sums[0] += used
            sums[1] += trained
        self._next_step = self._edges_of_next_step()

    def update(self) -> None:
        """Read the edges in use now."""
        masks = self.wiring.adjacency()
        if not self._last:
            self._explored = {name: mask.clone() for name, mask in masks.items()}
            self._new = {name: 0 for name in masks}
        for name, mask in masks.items():
            if self._last:
                self._new[name] = int((mask & ~self._last[name]).sum())
                self._explored[name] |= mask
        self._last = masks
        self.updates += 1
        for name, rule in self.wiring.rules.items():
            self._shares[name] = self._count_readable(name, masks[name]) / max(rule.num_edges, 1)
        self._next_step = self._edges_of_next_step()

    def churn(self) -> dict[str, float]:
        """Fraction of each layer's edges in use that were not in use at the update before, and of all under
        `total`; 0 before the second update.
        """
        return _fractions(self._new, {name: int(mask.sum()) for name, mask in self._last.items()})

    def explored(self) -> dict[str, float]:
        """Fraction of each layer's readable edges that were in use at one update at least, and of all under
        `total`.

        Source: Liu et al., "Do We Actually Need Dense Over-Parameterization?", ICML 2021, as the in-time
        over-parameterization rate.
        """
        counts = {name: self._count_readable(name, mask) for name, mask in self._explored.items()}
        rules = self.wiring.rules
        return _fractions(counts, {name: rules[name].potential.num_readable for name in counts})

    def mean_edges(self) -> dict[str, tuple[float, float]]:
        """Mean over the counted steps, by layer: edges of the products, and edges whose weight gets a
        gradient.
        """
        steps = max(self.steps, 1)
        return {
            name: (used / steps, trained / steps) for name, (used, trained) in self._steps_of_edges.items()
        }

    def training_macs(self, layers: tuple[LayerComplexity, ...]) -> TrainingMacs | None:
        """MACs of the counted steps.

        Args:
            layers: cost of each layer of the network, as in `profile(model).per_layer`.

        Returns:
            None if the products of a wired layer are not known.
        """
        means = {
            name.removesuffix(".weight").replace("_orig_mod.", ""): edges
            for name, edges in self.mean_edges().items()
        }
        forward = weights = 0.0
        for layer in layers:
            used, trained = means.pop(layer.name, (0.0, 0.0))
            if used and not layer.macs_per_edge:
                return None
            dense = layer.macs - layer.macs_per_edge * layer.edges
            forward += dense + layer.macs_per_edge * used
            weights += dense + layer.macs_per_edge * trained
        return None if means else TrainingMacs(forward, forward, weights)

    def _count_readable(self, name: str, mask: Tensor) -> int:
        """Number of the mask's edges that the forward pass reads."""
        readable = self.wiring.rules[name].potential.readable_mask
        if readable is not None:
            mask = mask.flatten(1) & readable.to(mask.device)
        return int(mask.sum())

    def _edges_of_next_step(self) -> dict[str, tuple[int, int]]:
        """Edges of the products, and edges that get a gradient. They are read ahead: in a step, a rule may
        change them for the step after it.
        """
        edges = {}
        for name, rule in self.wiring.rules.items():
            in_use = round(rule.num_edges * self._shares[name])
            edges[name] = rule.count_training_edges(in_use), rule.count_gradient_edges(in_use)
        return edges

    def state_dict(self) -> dict[str, Any]:
        """The history as numbers and tensors, for checkpoints."""
        return {
            "steps": self.steps,
            "updates": self.updates,
            "steps_of_edges": {name: list(sums) for name, sums in self._steps_of_edges.items()},
            "shares": dict(self._shares),
            "new": dict(self._new),
            "explored": {name: _packed(mask) for name, mask in self._explored.items()},
            "last": {name: _packed(mask) for name, mask in self._last.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            WiringError: it is that of another network.
        """
        rules = self.wiring.rules
        names = ["new", "explored", "last"] if state["updates"] else []
        for key in ["steps_of_edges", "shares", *names]:
            if set(state[key]) != set(rules):
                raise WiringError("the history is that of another network: it has other layers")
        masks = {
            key: {name: _unpacked(bits, rules[name].weight) for name, bits in state[key].items()}
            for key in ("explored", "last")
        }
        self._explored, self._last = masks["explored"], masks["last"]
        self.steps, self.updates = int(state["steps"]), int(state["updates"])
        self._steps_of_edges = {
            name: [int(used), int(trained)] for name, (used, trained) in state["steps_of_edges"].items()
        }
        self._shares = {name: float(share) for name, share in state["shares"].items()}
        self._new = {name: int(count) for name, count in state["new"].items()}
        self._next_step = self._edges_of_next_step()


def _fractions(counts: Mapping[str, int], totals: Mapping[str, int]) -> dict[str, float]:
    fractions = {name: counts[name] / max(totals[name], 1) for name in totals}
    return {**fractions, "total": sum(counts.values()) / max(sum(totals.values()), 1)}


def _packed(mask: Tensor) -> Tensor:
    """Eight entries of a mask in each byte."""
    return torch.from_numpy(np.packbits(mask.flatten().cpu().numpy()))


def _unpacked(bits: Tensor, weight: Tensor) -> Tensor:
    """The mask of `_packed`, of a weight's shape and on its device.

    Raises:
        WiringError: it is that of another weight.
    """
    if bits.dtype != torch.uint8 or bits.numel() != -(-weight.numel() // 8):
        raise WiringError("the history is that of another network: a weight has another size")
    mask = np.unpackbits(bits.cpu().numpy(), count=weight.numel()).astype(bool)
    return torch.from_numpy(mask).view(weight.shape).to(weight.device)
