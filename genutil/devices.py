"""Which device an experiment runs on. `select_gpus` must be called before torch is imported."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from genutil.errors import ConfigError

if TYPE_CHECKING:
    import torch

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_log = logging.getLogger(__name__)


def select_gpus(gpus: Sequence[int] | None, environment: MutableMapping[str, str] = os.environ) -> None:
    """Let CUDA see the chosen devices only. A list that the environment sets is narrowed, not replaced.

    Raises:
        ConfigError: a device that the environment does not offer.
    """
    if gpus is None:
        return
    offered = environment.get(_VISIBLE)
    chosen = [str(gpu) for gpu in gpus]
    if offered is not None and gpus:
        names = [name.strip() for name in offered.split(",") if name.strip()]
        if max(gpus) >= len(names):
            raise ConfigError(
                f"gpus: {max(gpus)} is not among the {len(names)} devices of {_VISIBLE}={offered}"
            )
        chosen = [names[gpu] for gpu in gpus]
    environment[_VISIBLE] = ",".join(chosen)


def choose_device(gpus: Sequence[int] | None) -> torch.device:
    """The device to train on: the first selected GPU, or the CPU. Warns where GPUs were asked for in vain."""
    import torch

    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and not available:
        _log.warning("--gpus %s: no CUDA device is available; running on the CPU", " ".join(map(str, gpus)))
    elif gpus and len(gpus) > 1:
        _log.warning("--gpus %s: runs on the first of them only", " ".join(map(str, gpus)))
    use_gpu = available > 0 and gpus != []
    return torch.device("cuda", 0) if use_gpu else torch.device("cpu")


def prepare_determinism(environment: MutableMapping[str, str] = os.environ) -> None:
    """What matrix products on GPUs need to repeat; must be set before the first of them."""
    environment.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextlib.contextmanager
def algorithms(deterministic: bool) -> Iterator[None]:
    """Within it, torch's algorithms give the same bits in each run, or else those are taken that are fastest
    for the sizes at hand, which differ in rounding. An operation that cannot repeat is an error then.
    """
    import torch

    cudnn, fill = torch.backends.cudnn, cast(Any, torch.utils.deterministic)
    before = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, fill.fill_uninitialized_memory
    torch.use_deterministic_algorithms(deterministic)
    cudnn.benchmark = not deterministic
    fill.fill_uninitialized_memory = False  # nothing here reads memory before it is written
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.benchmark, fill.fill_uninitialized_memory = before[1:]
