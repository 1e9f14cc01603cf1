# mypy: ignore-errors
"""The kernels of `wirings.radix`. At import, Triton decides by TRITON_INTERPRET what it makes of them.

A key is a weight's bits without the sign, as an integer: keys have the order of magnitudes, with NaN above
infinity. Every pass counts the keys of one interval in BINS bins of equal width, and the keys above it. The
next pass begins with the search for the bin that holds the threshold, which every program repeats for itself:
kernels of one stream run one after the other, so no program waits for another one, and the host for none.
"""

import triton
import triton.language as tl


@triton.jit
def first_interval(memory, FULL_SHIFT: tl.constexpr, BINS: tl.constexpr):
    """(low, shift) around the last threshold, wide enough for four times its last move; or all keys."""
    is_known = tl.load(memory)
    last = tl.load(memory + 1)
    moved = tl.load(memory + 2)
    shift = 0
    # At most 2^8 keys a bin, which in float32 is 3 % of the threshold on either side.
    for step in tl.static_range(8):
        shift += (((BINS // 8) << step) < moved).to(tl.int32)
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
    """(low, shift, is found, ties wanted, ties) after pass `row`; found: `low` is the threshold."""
    low = tl.load(plan + row * 8)
    shift = tl.load(plan + row * 8 + 1)
    found = tl.load(plan + row * 8 + 2)
    wanted = tl.load(plan + row * 8 + 3)
    ties = tl.load(plan + row * 8 + 4)
    if found == 0:
        bins = tl.arange(0, BINS)
        own = counts + row * (COPIES * BINS + 1)
        here = tl.zeros([BINS], tl.int32)
        for copy in range(COPIES):
            here += tl.load(own + copy * BINS + bins)
        above = tl.load(own + COPIES * BINS)
        reached = above + tl.cumsum(here, 0, reverse=True)
        chosen = tl.sum((reached >= count).to(tl.int32), 0) - 1
        if (chosen >= 0) & (above < count):
            low += chosen << shift
            if shift == 0:
                found = 1
                ties = tl.sum(tl.where(bins == chosen, here, 0), 0)
                wanted = count - (tl.sum(tl.where(bins == chosen, reached, 0), 0) - ties)
            shift = tl.maximum(shift - DIGIT, 0)
        else:  # the threshold has left the interval
            low = tl.zeros_like(low)
            shift = tl.zeros_like(shift) + FULL_SHIFT
    return low, shift, found, wanted, ties


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
    """One pass: the interval of pass `row` to `plan`, its counts to `counts`; none once it is found."""
    program = tl.program_id(0)
    if FIRST:
        low, shift = first_interval(memory, FULL_SHIFT, BINS)
        found, wanted, ties = 0, 0, 0
    else:
        low, shift, found, wanted, ties = next_interval(
            plan, counts, row - 1, count, FULL_SHIFT, DIGIT, BINS, COPIES
        )
    if program == 0:
        tl.store(plan + row * 8, low)
        tl.store(plan + row * 8 + 1, shift)
        tl.store(plan + row * 8 + 2, found)
        tl.store(plan + row * 8 + 3, wanted)
        tl.store(plan + row * 8 + 4, ties)
    if found == 0:
        own = counts + row * (COPIES * BINS + 1)
        copy = own + (program % COPIES) * BINS  # most keys of a wide interval share few bins
        above = tl.zeros([BLOCK], tl.int32)
        for start in range(program * BLOCK, size, tl.num_programs(0) * BLOCK):
            places = start + tl.arange(0, BLOCK)
            inside = places < size
            keys = tl.load(weights + places, mask=inside, other=0).to(tl.int32) & MAGNITUDE
            inside = inside & (keys >= low)
            bins = (keys - low) >> shift
            above += (inside & (bins >= BINS)).to(tl.int32)
            tl.atomic_add(copy + bins, 1, mask=inside & (bins < BINS), sem="relaxed")
        tl.atomic_add(own + COPIES * BINS, tl.sum(above, 0), sem="relaxed")


@triton.jit
def next_places(ties, counts, row, DIGIT: tl.constexpr, BINS: tl.constexpr):
    """(first place, shift, is found, ties wanted from there) after pass `row` over the places of ties."""
    first = tl.load(ties + row * 4)
    shift = tl.load(ties + row * 4 + 1)
    found = tl.load(ties + row * 4 + 2)
    wanted = tl.load(ties + row * 4 + 3)
    if found == 0:
        bins = tl.arange(0, BINS)
        here = tl.load(counts + row * BINS + bins)
        before = tl.cumsum(here, 0) - here
        chosen = tl.sum((before + here < wanted).to(tl.int32), 0)
        wanted -= tl.sum(tl.where(bins == chosen, before, 0), 0)
        first += chosen << shift
        if shift == 0:
            found = 1
        shift = tl.maximum(shift - DIGIT, 0)
    return first, shift, found, wanted


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
    PLACE_SHIFT: tl.constexpr,
    MAGNITUDE: tl.constexpr,
    FULL_SHIFT: tl.constexpr,
    DIGIT: tl.constexpr,
    BINS: tl.constexpr,
    COPIES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One pass over the places of the keys that equal the threshold, where not all of them are chosen."""
    program = tl.program_id(0)
    if FIRST:
        threshold, _shift, _found, wanted, num_ties = next_interval(
            plan, counts, PASSES - 1, count, FULL_SHIFT, DIGIT, BINS, COPIES
        )
        if program == 0:
            tl.store(plan + PASSES * 8, threshold)
        found = (wanted == num_ties).to(tl.int32)
        first = tl.where(found == 1, size, 0)  # all ties: up to the last place
        shift = PLACE_SHIFT
    else:
        threshold = tl.load(plan + PASSES * 8)
        first, shift, found, wanted = next_places(ties, tie_counts, row - 1, DIGIT, BINS)
    if program == 0:
        tl.store(ties + row * 4, first)
        tl.store(ties + row * 4 + 1, shift)
        tl.store(ties + row * 4 + 2, found)
        tl.store(ties + row * 4 + 3, wanted)
    if found == 0:
        own = tie_counts + row * BINS
        for start in range(program * BLOCK, size, tl.num_programs(0) * BLOCK):
            places = start + tl.arange(0, BLOCK)
            inside = places < size
            keys = tl.load(weights + places, mask=inside, other=0).to(tl.int32) & MAGNITUDE
            inside = inside & (keys == threshold) & (places >= first)
            bins = (places - first) >> shift
            tl.atomic_add(own + bins, 1, mask=inside & (bins < BINS), sem="relaxed")


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
    """1 above the threshold and for the first ties, 0 elsewhere; the threshold goes to `memory`."""
    program = tl.program_id(0)
    threshold = tl.load(plan + PASSES * 8)
    last_tie, _shift, _found, _wanted = next_places(ties, tie_counts, TIE_PASSES - 1, DIGIT, BINS)
    if program == 0:
        is_known, last = tl.load(memory), tl.load(memory + 1)
        tl.store(memory + 2, tl.where(is_known == 1, tl.minimum(tl.abs(threshold - last), 1 << 24), 1 << 24))
        tl.store(memory + 1, threshold)
        tl.store(memory, 1)
    for start in range(program * BLOCK, size, tl.num_programs(0) * BLOCK):
        places = start + tl.arange(0, BLOCK)
        inside = places < size
        keys = tl.load(weights + places, mask=inside, other=0).to(tl.int32) & MAGNITUDE
        is_chosen = (keys > threshold) | ((keys == threshold) & (places <= last_tie))
        tl.store(mask + places, is_chosen.to(tl.int8), mask=inside)
