"""The kernels of the native engine by themselves: with sanitizers, and with vectors of other widths."""

import platform
import subprocess

import numpy as np
import pytest
import torch

from tests.helpers.engine_operations import all_kinds
from tests.helpers.engines import NEEDS_COMPILER
from tests.helpers.random_wirings import small_mobilenet
from wirings.compacting import compact
from wirings.native import build
from wirings.native.planner import plan

pytestmark = NEEDS_COMPILER

SIZES = [
    (224, 1, 9, 14),
    (224, 2, 33, 31),
    (224, 5, 40, 57),
    (224, 3, 170, 150),
    (224, 9, 5, 1),
    (32, 1, 38, 1),
    (32, 2, 61, 3),
    (32, 1, 25, 13),
]
"""(image_size of the experiment, images, height, width)"""
KINDS = ["some", "few", "all", "columns"]


def check(folder, flags):
    """Programs of random wirings by a build of the kernels with these flags."""
    checker = folder / "check"
    sources = [build.KERNELS / name for name in ("check.cpp", *build.SOURCES)]
    command = [build.compiler(), "-std=gnu++17", *flags, "-pthread", *map(str, sources), "-o", str(checker)]
    subprocess.run(command, check=True, capture_output=True)
    files = []
    for seed, (image_size, *shape) in enumerate(SIZES):
        native = compact(small_mobilenet(seed, (KINDS[seed % 4],) * 4, image_size), "native")
        images = torch.randn(shape[0], 3, *shape[1:])
        files.append(write_program(folder / str(seed), native, images))
    files += [write_layers(folder / f"layers{seed}", seed) for seed in range(6)]
    done = subprocess.run([checker, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    differences = [float(line.split()[-1]) for line in done.stdout.splitlines()]
    assert [difference < 1e-4 for difference in differences] == [True] * len(files)


def write_program(path, native, pixels):
    """A file for check.cpp."""
    return write(path, native.program(*pixels.shape[2:]), [pixels], [native(pixels)])


def write_layers(path, seed):
    """Operations of all kinds, of other sizes in each file."""
    operations, pixels, expected = all_kinds(seed)
    return write(path, plan(operations.list), [pixels], [expected])


def write(path, program, inputs, outputs):
    path.write_bytes(program.to_bytes())
    count = np.array([len(inputs[0])], np.int64).tobytes()
    data = [tensor.numpy().tobytes() for tensor in (*inputs, *outputs)]
    path.with_name(f"{path.name}.data").write_bytes(b"".join([count, *data]))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_kernels_with_sanitizers(sanitizer, tmp_path):
    """A build that stops at the first read or write out of place, or race."""
    flags = ["-O1", "-g", "-march=native", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    check(tmp_path, flags)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="flags of x86")
@pytest.mark.parametrize(
    ("flags", "lanes"), [pytest.param(["-mavx2", "-mfma"], 8, marks=pytest.mark.slow), ([], 4)]
)
def test_kernels_of_other_processors(flags, lanes, tmp_path):
    """With vectors of other widths; the processor here must have them."""
    if lanes == 8 and torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("needs AVX2")
    check(tmp_path, ["-O2", *flags])
