"""Selection of the largest magnitudes on a GPU in a few passes over the memory. Not measured on a GPU yet.

A radix search over the bits of the weights: each pass counts the keys of an interval in 2,048 bins, and the
bin that contains the threshold is the next interval. The first interval is around the last threshold, so that
in steady training one or two passes find it; a search among all keys takes three. If only some of the weights
at the threshold are selected, passes over their indices find the last one.

There is no synchronization with the device, the launches are the same for all weights of a size (they can be
part of a CUDA graph), and counts are integers, so that the result is the same in every run.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_DIGIT = 11
_BINS = 1 << _DIGIT
_COPIES = 8
_BLOCK = 4096
_MAX_NUMEL = 1 << 30
"""Indices are 32-bit integers."""
_KEYS = {
    torch.float32: (torch.int32, 31),
    torch.float16: (torch.int16, 15),
    torch.bfloat16: (torch.int16, 15),
}


_log = logging.getLogger(__name__)


def is_supported(weight: Tensor) -> bool:
    """Whether `RadixSelect` supports this weight: 32 or 16 bits, on a GPU for which Triton can compile."""
    return (
        weight.device.type == "cuda"
        and weight.dtype in _KEYS
        and weight.numel() <= _MAX_NUMEL
        and _compiles(weight.device)
    )


@functools.cache
def _compiles(device: torch.device) -> bool:
    """Whether Triton is installed and can compile here: it needs a C compiler at the first kernel."""
    if importlib.util.find_spec("triton") is None:
        return False
    try:
        RadixSelect().mask(torch.ones(2, device=device), 1)
    except Exception as error:  # errors of Triton and of compilers have no common type
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        _log.warning("Triton cannot compile for this GPU (%s); edges are selected by torch.topk", reason)
        return False
    return True


def is_faster(
    selection: RadixSelect, other: Callable[[], Tensor], weight: Tensor, count: int, rounds: int = 5
) -> bool:
    """Whether `selection` is faster than `other` for a weight on a GPU."""
    candidates: tuple[Callable[[], Tensor], ...] = (lambda: selection.mask(weight, count), other)
    times: tuple[list[float], list[float]] = [], []
    for number in range(rounds + 2):
        for candidate, seconds in zip(candidates, times, strict=True):
            torch.cuda.synchronize(weight.device)
            started = time.perf_counter()
            candidate()
            torch.cuda.synchronize(weight.device)
            if number >= 2:  # the first ones compile, and find the threshold at which the others start
                seconds.append(time.perf_counter() - started)
    return statistics.median(times[0]) < statistics.median(times[1])


class RadixSelect:
    """Masks of the strongest entries of a weight, for repeated selections.

    The last threshold is stored on the device, as the start of the next search. The result does not depend on
    it. A copy starts without it.
    """

    def __init__(self) -> None:
        self._memory: Tensor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> RadixSelect:
        return RadixSelect()

    def __reduce__(self) -> tuple[type[RadixSelect], tuple[()]]:
        return RadixSelect, ()

    def mask(self, weight: Tensor, count: int) -> Tensor:
        """Mask of the `count` entries of largest magnitude; of equal ones, those of lowest index.

        NaN ranks above infinity.

        Args:
            weight: any shape; float32, float16 or bfloat16.
            count: 1..numel.

        Returns:
            Boolean mask of the same shape.
        """
        integer, bits = _KEYS[weight.dtype]
        flat = weight.detach().contiguous().view(-1).view(integer)
        size = flat.numel()
        if self._memory is None or self._memory.device != flat.device:
            self._memory = torch.zeros(3, dtype=torch.int32, device=flat.device)
        passes, tie_passes = 1 + -(-bits // _DIGIT), -(-max(size - 1, 1).bit_length() // _DIGIT)
        lengths = [passes * (_COPIES * _BINS + 1), tie_passes * _BINS, (passes + 1) * 8, tie_passes * 4]
        workspace = torch.zeros(sum(lengths), dtype=torch.int32, device=flat.device)
        counts, tie_counts, plan, ties = torch.split(workspace, lengths)
        mask = torch.empty(size, dtype=torch.int8, device=flat.device)
        kernels: Any = importlib.import_module("wirings.radix_kernels")
        grid = (_num_programs(flat),)
        keys: dict[str, Any] = {"MAGNITUDE": (1 << bits) - 1, "DIGIT": _DIGIT, "BINS": _BINS, "BLOCK": _BLOCK}
        search = {**keys, "FULL_SHIFT": max(bits - _DIGIT, 0), "COPIES": _COPIES, "num_warps": 8}
        for row in range(passes):
            kernels.count_keys[grid](
                flat, self._memory, plan, counts, row, count, size, FIRST=row == 0, **search
            )
        for row in range(tie_passes):
            kernels.count_ties[grid](
                flat, plan, counts, ties, tie_counts, row, count, size,
                PASSES=passes, FIRST=row == 0, INDEX_SHIFT=(tie_passes - 1) * _DIGIT, **search,
            )  # fmt: skip
        kernels.write_mask[grid](
            flat, self._memory, plan, ties, tie_counts, mask, size,
            PASSES=passes, TIE_PASSES=tie_passes, num_warps=8, **keys,
        )  # fmt: skip
        return mask.view(torch.bool).view(weight.shape)


def _num_programs(flat: Tensor) -> int:
    """The number of programs that a GPU runs at once, or fewer if there are fewer blocks."""
    blocks = -(-flat.numel() // _BLOCK)
    if flat.device.type != "cuda":
        return min(blocks, 3)
    return min(blocks, 4 * torch.cuda.get_device_properties(flat.device).multi_processor_count)
