"""An optimizer that ends the run in its fifth step, as a mistake of the user's does."""

import torch

from genutil.exceptions import UserError


class Stops(torch.optim.SGD):
    """SGD for four steps."""

    steps = 0

    def step(self, closure=None):
        self.steps += 1
        if self.steps == 5:
            raise UserError("enough")
        return super().step(closure)


def stops(parameters, lr, momentum, weight_decay):
    """As in an experiment: `optimizer: tests.stops:stops`."""
    return Stops(parameters, lr, momentum=momentum, weight_decay=weight_decay)
