# mypy: ignore-errors
"""Kernels of the Triton engine. At import, Triton compiles or interprets them, by TRITON_INTERPRET.

Edges are in slices of SLICE targets; see `wirings.engines.slices`. A tile is TARGETS neighbours of a slice
times BLOCK pixels, with sums in the type of the weights. A target's sum begins with the bias; its edges
follow in their order, each by one multiply-add, so that sums do not depend on the tile. Positions inside a
row of maps are 32-bit integers.
"""

import triton
import triton.language as tl


@triton.jit
def add_sources(
    total,
    sources,
    columns,
    weights,
    first_edge,
    count,
    row,
    positions,
    inside,
    TARGETS: tl.constexpr,
    BLOCK: tl.constexpr,
    SLICE: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """`total` (TARGETS, BLOCK) and the weighted maps of the targets' sources, UNROLL edges at a time.

    `first_edge` is (TARGETS); `count` is that of the target with most edges. Edges of column -1 are padding
    and read nothing.
    """
    for start in range(0, count, UNROLL):
        for step in tl.static_range(UNROLL):
            edges = first_edge + (start + step) * SLICE
            column = tl.load(columns + edges)
            weight = tl.load(weights + edges)
            maps = (sources + column.to(tl.int64) * row)[:, None] + positions[None, :]
            values = tl.load(maps, mask=(column >= 0)[:, None] & inside[None, :], other=0.0).to(weight.dtype)
            total = tl.fma(tl.broadcast_to(weight[:, None], [TARGETS, BLOCK]), values, total)
    return total


@triton.jit
def filtered(
    maps,
    bias,
    filters,
    begin,
    y,
    x,
    is_node,
    inside,
    height,
    width,
    stride,
    bias_step,
    ENTERING: tl.constexpr,
    NODES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Results (NODES, BLOCK) of each node's 3×3 filter at rows `y` and columns `x`, both (BLOCK); padding 1.

    `maps`, `bias` and `filters` point to each node's first value, `begin` (BLOCK) is the start of its image.
    ENTERING: bias and ReLU are applied before.
    """
    dtype = filters.dtype.element_ty
    total = tl.zeros([NODES, BLOCK], dtype)
    for down in tl.static_range(3):
        for right in tl.static_range(3):
            row = y * stride + (down - 1)
            column = x * stride + (right - 1)
            is_pixel = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            mask = is_node[:, None] & is_pixel[None, :]
            position = row * width + column
            value = tl.load(maps[:, None] + (begin + position)[None, :], mask=mask, other=0.0).to(dtype)
            if ENTERING:
                added = tl.load(bias[:, None] + (position * bias_step)[None, :], mask=mask, other=0.0).to(
                    dtype
                )
                value += added
                value = tl.where(value < 0, 0.0, value)  # NaN stays NaN, as in torch
            weight = tl.load(filters + (down * 3 + right), mask=is_node, other=0.0)
            total = tl.fma(tl.broadcast_to(weight[:, None], [NODES, BLOCK]), value, total)
    return total


@triton.jit(do_not_specialize=["image_pixels", "bias_row", "bias_step", "is_rectified", "groups", "span"])
def gather_product(
    sources,
    order,
    counts,
    offsets,
    columns,
    weights,
    bias,
    result,
    pixels,
    image_pixels,
    bias_row,
    bias_step,
    is_rectified,
    groups,
    span,
    TARGETS: tl.constexpr,
    BLOCK: tl.constexpr,
    SLICE: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """A block of pixels of all images, for `span` groups of TARGETS targets: bias, weighted sources, ReLU.

    Rows of `sources` and `result` have `pixels` values. `bias` has one value for a target (`bias_step` 0) or
    one for each pixel of an image (1).
    """
    dtype = weights.dtype.element_ty
    positions = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = positions < pixels
    in_bias = (positions % image_pixels) * bias_step
    lanes = tl.arange(0, TARGETS)
    first_group = tl.program_id(1) * span
    for group in range(first_group, tl.minimum(first_group + span, groups)):
        first = group * TARGETS
        targets = tl.load(order + first + lanes)
        mask = (targets >= 0)[:, None] & inside[None, :]
        count = tl.load(counts + first)
        first_edge = tl.load(offsets + first // SLICE) + first % SLICE + lanes
        total = tl.load((bias + targets * bias_row)[:, None] + in_bias[None, :], mask=mask, other=0.0).to(
            dtype
        )
        total = add_sources(
            total,
            sources,
            columns,
            weights,
            first_edge,
            count,
            pixels,
            positions,
            inside,
            TARGETS,
            BLOCK,
            SLICE,
            UNROLL,
        )
        total = tl.where((total < 0) & (is_rectified != 0), 0.0, total)  # NaN stays NaN, as in torch
        rows = (result + targets.to(tl.int64) * pixels)[:, None] + positions[None, :]
        tl.store(rows, total.to(result.dtype.element_ty), mask=mask)


_SIZES = ["images", "height", "width", "out_height", "out_width", "stride", "bias_row", "bias_step"]


@triton.jit(do_not_specialize=[*_SIZES, "groups", "span", "rows", "row_blocks", "scratch_size"])
def gather_filter(
    sources,
    order,
    counts,
    offsets,
    columns,
    weights,
    bias,
    filters,
    scratch,
    result,
    images,
    height,
    width,
    out_height,
    out_width,
    stride,
    bias_row,
    bias_step,
    groups,
    span,
    rows,
    row_blocks,
    scratch_size,
    TARGETS: tl.constexpr,
    BLOCK: tl.constexpr,
    SLICE: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """Filtered maps for `span` groups of targets, `rows` rows of an image at a time: product, ReLU, filter.

    The rectified rows go through the program's part of `scratch`, TARGETS × `scratch_size` values, which is
    reused so that it stays in the cache.
    """
    dtype = weights.dtype.element_ty
    row = images.to(tl.int64) * height * width
    out_row = images.to(tl.int64) * out_height * out_width
    lanes = tl.arange(0, TARGETS)
    program = (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)).to(tl.int64)
    program_scratch = scratch + (program * TARGETS + lanes) * scratch_size
    first_group = tl.program_id(1) * span
    for item in range(tl.program_id(0), images * row_blocks, tl.num_programs(0)):
        image = (item // row_blocks).to(tl.int64)
        image_offset, result_offset = image * height * width, image * out_height * out_width
        top = (item % row_blocks) * rows
        bottom = tl.minimum(top + rows, out_height)
        top_read = tl.maximum(top * stride - 1, 0)
        begin, end = top_read * width, tl.minimum((bottom - 1) * stride + 2, height) * width
        for group in range(first_group, tl.minimum(first_group + span, groups)):
            first = group * TARGETS
            targets = tl.load(order + first + lanes)
            is_target = targets >= 0
            count = tl.load(counts + first)
            first_edge = tl.load(offsets + first // SLICE) + first % SLICE + lanes
            for start in range(begin, end, BLOCK):
                positions = start + tl.arange(0, BLOCK)
                inside = positions < end
                mask = is_target[:, None] & inside[None, :]
                added = (bias + targets * bias_row)[:, None] + (positions * bias_step)[None, :]
                total = tl.load(added, mask=mask, other=0.0).to(dtype)
                total = add_sources(
                    total, sources + image_offset, columns, weights, first_edge, count, row, positions,
                    inside, TARGETS, BLOCK, SLICE, UNROLL,
                )  # fmt: skip
                total = tl.where(total < 0, 0.0, total).to(scratch.dtype.element_ty)
                tl.store(program_scratch[:, None] + (positions - begin)[None, :], total, mask=mask)
            tl.debug_barrier()  # makes the threads' writes visible to all threads of the program
            for start in range(top * out_width, bottom * out_width, BLOCK):
                positions = start + tl.arange(0, BLOCK)
                inside = positions < bottom * out_width
                sent = filtered(
                    program_scratch - begin, program_scratch, filters + targets * 9,
                    tl.zeros([BLOCK], tl.int32), positions // out_width, positions % out_width, is_target,
                    inside, height, width, stride, 0, False, TARGETS, BLOCK,
                )  # fmt: skip
                target_rows = (result + targets.to(tl.int64) * out_row + result_offset)[:, None] + positions[
                    None, :
                ]
                mask = is_target[:, None] & inside[None, :]
                tl.store(target_rows, sent.to(result.dtype.element_ty), mask=mask)
            tl.debug_barrier()  # all threads have read before the next write


@triton.jit(do_not_specialize=[*_SIZES, "node_row", "image_row"])
def filter_maps(
    maps,
    bias,
    filters,
    result,
    images,
    height,
    width,
    out_height,
    out_width,
    stride,
    bias_row,
    bias_step,
    node_row,
    image_row,
    BLOCK: tl.constexpr,
):
    """A block of pixels of one node's filtered maps of all images: the bias, ReLU and the 3×3 filter.

    `node_row` and `image_row` are the strides of `maps`; `result` is (nodes, images, out_height, out_width).
    """
    nodes = tl.program_id(1) + tl.arange(0, 1)
    out_pixels = out_height * out_width
    positions = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = positions < images * out_pixels
    position = positions % out_pixels
    begin = (positions // out_pixels).to(tl.int64) * image_row
    is_node = nodes >= 0
    sent = filtered(
        maps + nodes.to(tl.int64) * node_row, bias + nodes * bias_row, filters + nodes * 9, begin,
        position // out_width, position % out_width, is_node, inside, height, width, stride, bias_step,
        True, 1, BLOCK,
    )  # fmt: skip
    rows = (result + nodes.to(tl.int64) * images * out_pixels)[:, None] + positions[None, :]
    tl.store(rows, sent.to(result.dtype.element_ty), mask=inside[None, :])
