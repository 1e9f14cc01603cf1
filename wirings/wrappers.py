"""Wrappers of networks: with one input, and for evaluation only."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from wirings.channel_report import ChannelReport
from wirings.errors import WiringError


class OneInput(nn.Module):
    """A network that is called with one tensor, for torch.export and torch.fx; other arguments have their
    defaults.

    Attributes:
        network: computes the output.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        """The output of the network."""
        return self.network(images)


class EvaluationOnly(nn.Module):
    """A network that cannot be trained."""

    def train(self, mode: bool = True) -> EvaluationOnly:
        """Only evaluation is possible, since norms are folded and dead nodes are removed.

        Raises:
            WiringError: `mode` is true.
        """
        if mode:
            raise WiringError("a compact network is for evaluation only; train the network it was made from")
        super().train(False)
        return self


class EvaluationNetwork(EvaluationOnly, OneInput):
    """A network whose weights are fixed.

    Args:
        network: gradients of its parameters are disabled.

    Attributes:
        report: of the removal of channels; None if only norms were folded.
    """

    report: ChannelReport | None = None

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network.requires_grad_(False))
        self.eval()
