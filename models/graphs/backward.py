"""What autograd does not tell officially: which backward pass is under way."""

from __future__ import annotations

import torch


class BackwardPass:
    """Notices when another backward pass has begun, so that sums of gradients begin anew."""

    def __init__(self) -> None:
        self._number = -1

    def has_begun(self) -> bool:
        """Whether this is the first call within the pass under way. Only to be called by a `backward`."""
        before, self._number = self._number, torch._C._current_graph_task_id()
        return self._number != before
