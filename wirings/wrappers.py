"""Networks around a network: as one part, with one input, and for evaluation alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from wirings.errors import WiringError

if TYPE_CHECKING:
    from wirings.channels import ChannelReport


class OneInput(nn.Module):
    """A network as a part of another one, which is called with one tensor: arguments that it has beside the
    first keep their defaults. torch.export and torch.fx get it so.

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
        """Only evaluation is possible: norms are folded, and dead nodes cannot come back.

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
        network: its parameters get no gradients from now on.

    Attributes:
        report: what became of its channels; None where it was only made of a network with folded norms.
    """

    report: ChannelReport | None = None

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network.requires_grad_(False))
        self.eval()
