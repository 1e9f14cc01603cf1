# mypy: ignore-errors
"""Kernels of `wirings.radix`. At import, Triton compiles or interprets them, by TRITON_INTERPRET.

A key is a weight's bits without the sign, as an integer: keys have the order of magnitudes, with NaN above
infinity. Every pass counts the keys of one interval in BINS bins of equal width, and the keys above it. The
next pass begins with the search for the bin that contains the threshold, which every program repeats: kernels
of one stream run one after the other, so no program waits for another one, nor does the host.
"""

import triton
import triton.language as tl


@triton.jit
def first_interval(memory, FULL_SHIFT: tl.constexpr, BINS: tl.constexpr):
    """(low, shift) around the last threshold, wide enough for four times its last change; or all keys."""
    is_known = tl.load(memory)
    last = tl.load(memory + 1)
    change = tl.load(memory + 2)
    shift = 0
    # At most 2^8 keys per bin, in float32 3 % of the threshold on either side.
    for step in tl.static_range(8):
        shift += (((BINS // 8) << step) < change).to(tl.int32)
    low = tl.maximum(last - ((BINS // 2) << shift), 0)
    return tl.where(is_known == 1, low, 0), tl.where(is_known == 1, shift, FULL_SHIFT)


@triton.jit
def next_interval(
    plan,
    counts,
    row,
    count,
    FULL_SHIFT: tl.constexpr,
    DIGIT: tl.constexpr,
    BINS: tl.constexpr,
    COPIES: tl.constexpr,
):
    """(low, shift, is found, ties to select, ties) after pass `row`; if found, `low` is the threshold."""
    low = tl.load(plan + row * 8)
    shift = tl.load(plan + row * 8 + 1)
    is_found = tl.load(plan + row * 8 + 2)
    num_selected = tl.load(plan + row * 8 + 3)
    ties = tl.load(plan + row * 8 + 4)
    if is_found == 0:
        bins = tl.arange(0, BINS)
        row_counts = counts + row * (COPIES * BINS + 1)
        bin_counts = tl.zeros([BINS], tl.int32)
        for copy in range(COPIES):
            bin_counts += tl.load(row_counts + copy * BINS + bins)
        above = tl.load(row_counts + COPIES * BINS)
        reached = above + tl.cumsum(bin_counts, 0, reverse=True)
        bin = tl.sum((reached >= count).to(tl.int32), 0) - 1
        if (bin >= 0) & (above < count):
            low += bin << shift
            if shift == 0:
                is_found = 1
                ties = tl.sum(tl.where(bins == bin, bin_counts, 0), 0)
                num_selected = count - (tl.sum(tl.where(bins == bin, reached, 0), 0) - ties)
            shift = tl.maximum(shift - DIGIT, 0)
        else:  # the threshold is outside of the interval
            low = tl.zeros_like(low)
            shift = tl.zeros_like(shift) + FULL_SHIFT
    return low, shift, is_found, num_selected, ties


@triton.jit(do_not_specialize=["row", "count"])
def count_keys(
    weights,
    memory,
    plan,
    counts,
    row,
    count,
    size,
    FIRST: tl.constexpr,
    MAGNITUDE: tl.constexpr,
    FULL_SHIFT: tl.constexpr,
    DIGIT: tl.constexpr,
    BINS: tl.constexpr,
    COPIES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One pass: the interval of pass `row` to `plan`, its counts to `counts`; nothing if it is found."""
    program = tl.program_id(0)
    if FIRST:
        low, shift = first_interval(memory, FULL_SHIFT, BINS)
        is_found, num_selected, ties = 0, 0, 0
    else:
        low, shift, is_found, num_selected, ties = next_interval(
            plan, counts, row - 1, count, FULL_SHIFT, DIGIT, BINS, COPIES
        )
    if program == 0:
        tl.store(plan + row * 8, low)
        tl.store(plan + row * 8 + 1, shift)
        tl.store(plan + row * 8 + 2, is_found)
        tl.store(plan + row * 8 + 3, num_selected)
        tl.store(plan + row * 8 + 4, ties)
    if is_found == 0:
        row_counts = counts + row * (COPIES * BINS + 1)
        copy = row_counts + (program % COPIES) * BINS  # most keys of a wide interval share few bins
        above = tl.zeros([BLOCK], tl.int32)
        for start in range(program * BLOCK, size, tl.num_programs(0) * BLOCK):
            indices = start + tl.arange(0, BLOCK)
            inside = indices < size
            keys = tl.load(weights + indices, mask=inside, other=0).to(tl.int32) & MAGNITUDE
            inside = inside & (keys >= low)
            bins = (keys - low) >> shift
            above += (inside & (bins >= BINS)).to(tl.int32)
            tl.atomic_add(copy + bins, 1, mask=inside & (bins < BINS), sem="relaxed")
        tl.atomic_add(row_counts + COPIES * BINS, tl.sum(above, 0), sem="relaxed")


@triton.jit
def next_tie_interval(ties, counts, row, DIGIT: tl.constexpr, BINS: tl.constexpr):
    """(first index, shift, is found, ties to select from it) after pass `row` over the indices of ties."""
    first = tl.load(ties + row * 4)
    shift = tl.load(ties + row * 4 + 1)
    is_found = tl.load(ties + row * 4 + 2)
    num_selected = tl.load(ties + row * 4 + 3)
    if is_found == 0:
        bins = tl.arange(0, BINS)
        bin_counts = tl.load(counts + row * BINS + bins)
        before = tl.cumsum(bin_counts, 0) - bin_counts
        bin = tl.sum((before + bin_counts < num_selected).to(tl.int32), 0)
        num_selected -= tl.sum(tl.where(bins == bin, before, 0), 0)
        first += bin << shift
        if shift == 0:
            is_found = 1
        shift = tl.maximum(shift - DIGIT, 0)
    return first, shift, is_found, num_selected


@triton.jit(do_not_specialize=["row", "count"])
def count_ties(
    weights,
    plan,
    counts,
    ties,
    tie_counts,
    row,
    count,
    size,
    PASSES: tl.constexpr,
    FIRST: tl.constexpr,
    INDEX_SHIFT: tl.constexpr,
    MAGNITUDE: tl.constexpr,
    FULL_SHIFT: tl.constexpr,
    DIGIT: tl.constexpr,
    BINS: tl.constexpr,
    COPIES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One pass over the indices of the keys equal to the threshold, if not all of them are selected."""
    program = tl.program_id(0)
    if FIRST:
        threshold, _shift, _is_found, num_selected, num_ties = next_interval(
            plan, counts, PASSES - 1, count, FULL_SHIFT, DIGIT, BINS, COPIES
        )
        if program == 0:
            tl.store(plan + PASSES * 8, threshold)
        is_found = (num_selected == num_ties).to(tl.int32)
        first = tl.where(is_found == 1, size, 0)  # all ties: up to the last index
        shift = INDEX_SHIFT
    else:
        threshold = tl.load(plan + PASSES * 8)
        first, shift, is_found, num_selected = next_tie_interval(ties, tie_counts, row - 1, DIGIT, BINS)
    if program == 0:
        tl.store(ties + row * 4, first)
        tl.store(ties + row * 4 + 1, shift)
        tl.store(ties + row * 4 + 2, is_found)
        tl.store(ties + row * 4 + 3, num_selected)
    if is_found == 0:
        row_counts = tie_counts + row * BINS
        for start in range(program * BLOCK, size, tl.num_programs(0) * BLOCK):
            indices = start + tl.arange(0, BLOCK)
            inside = indices < size
            keys = tl.load(weights + indices, mask=inside, other=0).to(tl.int32) & MAGNITUDE
            inside = inside & (keys == threshold) & (indices >= first)
            bins = (indices - first) >> shift
            tl.atomic_add(row_counts + bins, 1, mask=inside & (bins < BINS), sem="relaxed")


@triton.jit
def write_mask(
    weights,
    memory,
    plan,
    ties,
    tie_counts,
    mask,
    size,
    PASSES: tl.constexpr,
    TIE_PASSES: tl.constexpr,
    MAGNITUDE: tl.constexpr,
    DIGIT: tl.constexpr,
    BINS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """1 above the threshold and for the first ties, 0 elsewhere; stores the threshold in `memory`."""
    program = tl.program_id(0)
    threshold = tl.load(plan + PASSES * 8)
    last_tie, _shift, _is_found, _num_selected = next_tie_interval(
        ties, tie_counts, TIE_PASSES - 1, DIGIT, BINS
    )
    if program == 0:
        is_known, last = tl.load(memory), tl.load(memory + 1)
        tl.store(memory + 2, tl.where(is_known == 1, tl.minimum(tl.abs(threshold - last), 1 << 24), 1 << 24))
        tl.store(memory + 1, threshold)
        tl.store(memory, 1)
    for start in range(program * BLOCK, size, tl.num_programs(0) * BLOCK):
        indices = start + tl.arange(0, BLOCK)
        inside = indices < size
        keys = tl.load(weights + indices, mask=inside, other=0).to(tl.int32) & MAGNITUDE
        is_selected = (keys > threshold) | ((keys == threshold) & (indices <= last_tie))
        tl.store(mask + indices, is_selected.to(tl.int8), mask=inside)
