"""The kernel of the Triton engine. At import, Triton decides by TRITON_INTERPRET what it makes of it."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def gather_product(
    sources: Any,
    starts: Any,
    columns: Any,
    weights: Any,
    bias: Any,
    result: Any,
    pixels: Any,
    bias_pixels: Any,
    RECTIFIED: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """A block of pixels of one target: its bias and the maps of its sources, weighted; then ReLU.

    `bias` is (targets, bias_pixels) with one value for each target, or one for each pixel of an image.
    """
    target = tl.program_id(1)
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = places < pixels
    total = tl.load(bias + target * bias_pixels + places % bias_pixels, mask=inside, other=0.0)
    for edge in range(tl.load(starts + target), tl.load(starts + target + 1)):
        source = tl.load(columns + edge).to(tl.int64) * pixels
        total += tl.load(weights + edge) * tl.load(sources + source + places, mask=inside, other=0.0)
    if RECTIFIED:
        # A NaN stays one, as in torch.
        total = tl.where(total < 0, 0.0, total)
    tl.store(result + target.to(tl.int64) * pixels + places, total, mask=inside)
