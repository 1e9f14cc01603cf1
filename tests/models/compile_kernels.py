"""Compiles all Triton kernels for GPUs that are not here: `python -m tests.models.compile_kernels`.

Triton's interpreter accepts what its compiler refuses. The compiler needs no GPU to write code for one, but
it needs a process in which Triton was not imported with TRITON_INTERPRET.
"""

from __future__ import annotations

import importlib
from typing import Any

TARGETS = (80, 90)
"""Compute capabilities."""
_SEARCH = {
    "MAGNITUDE": (1 << 31) - 1,
    "FULL_SHIFT": 20,
    "DIGIT": 11,
    "BINS": 2048,
    "COPIES": 8,
    "BLOCK": 4096,
}
_TIES = {**_SEARCH, "PASSES": 4, "INDEX_SHIFT": 11}
_MASK = {key: _SEARCH[key] for key in ("MAGNITUDE", "DIGIT", "BINS", "BLOCK")}
_INTEGERS = {"row": "i32", "count": "i32", "size": "i32"}
_TILE = {"TARGETS": 4, "BLOCK": 256, "SLICE": 8, "UNROLL": 4}
_GATHER = "wirings.engines.gather"
_SIZES = (
    "pixels",
    "image_pixels",
    "is_rectified",
    "images",
    "height",
    "width",
    "out_height",
    "out_width",
    "stride",
)
_STEPS = (
    "bias_row",
    "bias_step",
    "node_row",
    "image_row",
    "groups",
    "span",
    "rows",
    "row_blocks",
    "scratch_size",
)


def _maps(kind: str) -> dict[str, str]:
    """Types of the arguments of all gather kernels, for maps of this type."""
    maps = dict.fromkeys(("sources", "maps", "scratch", "result"), f"*{kind}")
    values = dict.fromkeys(("weights", "bias", "filters"), "*fp64" if kind == "fp64" else "*fp32")
    return {**dict.fromkeys((*_SIZES, *_STEPS), "i32"), **maps, **values}


KERNELS: tuple[tuple[str, dict[str, str], dict[str, Any]], ...] = (
    ("wirings.radix_kernels:count_keys", _INTEGERS, {**_SEARCH, "FIRST": True}),
    ("wirings.radix_kernels:count_keys", _INTEGERS, {**_SEARCH, "FIRST": False}),
    ("wirings.radix_kernels:count_keys", {**_INTEGERS, "weights": "*i16"}, {**_SEARCH, "FIRST": False}),
    ("wirings.radix_kernels:count_ties", _INTEGERS, {**_TIES, "FIRST": True}),
    ("wirings.radix_kernels:count_ties", _INTEGERS, {**_TIES, "FIRST": False}),
    (
        "wirings.radix_kernels:write_mask",
        {**_INTEGERS, "mask": "*i8"},
        {**_MASK, "PASSES": 4, "TIE_PASSES": 2},
    ),
    *((f"{_GATHER}:gather_product", _maps(kind), _TILE) for kind in ("fp32", "bf16", "fp64")),
    (f"{_GATHER}:gather_product", _maps("fp32"), {**_TILE, "TARGETS": 1, "pixels": 1}),
    *((f"{_GATHER}:gather_filter", _maps(kind), _TILE) for kind in ("fp32", "bf16")),
    (f"{_GATHER}:gather_filter", _maps("fp32"), {**_TILE, "TARGETS": 1}),
    (f"{_GATHER}:filter_maps", _maps("fp32"), {"BLOCK": 256}),
    (f"{_GATHER}:filter_maps", {**_maps("bf16"), "maps": "*fp32"}, {"BLOCK": 1024}),
)
"""(module:kernel, types of its arguments that are no `*i32`, values of its compile-time arguments)."""


def compile_kernel(path: str, types: dict[str, str], constants: dict[str, Any], target: int) -> Any:
    """What Triton's compiler makes of a kernel; `asm` holds its stages up to the GPU's code."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module, _, name = path.partition(":")
    kernel = getattr(importlib.import_module(module), name)
    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else types.get(n, "*i32") for n in names}
    places = {(names.index(n),): value for n, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=places)
    return triton.compile(source, target=GPUTarget("cuda", target, 32), options={"num_warps": 8})


if __name__ == "__main__":
    for kernel in KERNELS:
        for target in TARGETS:
            code = compile_kernel(*kernel, target).asm["cubin"]
            print(f"{kernel[0]} {kernel[2]} for sm_{target}: {len(code)} bytes")
