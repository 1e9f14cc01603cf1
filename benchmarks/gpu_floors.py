"""Bytes and operations of the Triton engine on a GPU, counted, and the time predicted from them.

    python -m benchmarks.gpu_floors [--app APP] [--wiring trained] [--batch_sizes 1 8 64 256] [--json FILE]

A prediction, not a measurement: it needs no GPU. The network is that of benchmarks.fast_eval. Moved: each
source and each result once. Gathered: a source for each edge and the maps between a product and its filters,
all from the L2 cache; dense products write those maps to memory. Floor: the time of the moved bytes at the
bandwidth of the memory, or of the L2 cache if they fit. Expected: the slowest of moving, gathering and
computing, each at a fraction of the card's rate (constants below), and the start of a kernel.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch

from benchmarks.report import Report, run
from benchmarks.wirings import WIRINGS, make_network
from genutil.config import load_config
from genutil.exceptions import UserError
from wirings.compact_network import CompactNetwork, CompactStage, ConvStem, dense_weight
from wirings.compacting import compact
from wirings.layout import conv_out_size

MEMORY = {"H100": 3.35e12, "H200": 4.8e12}
"""Bytes per second, as stated by the vendor."""
L2, L2_SIZE = 5.5e12, 40e6
"""Bytes per second of the L2 cache, as measured by others, and the bytes assumed to stay in it."""
RATES = {torch.float32: 67e12, torch.bfloat16: 990e12}
"""Operations per second: float32 without tensor cores, bfloat16 with them, as stated by the vendor."""
GATHER_FRACTION, DENSE_FRACTION, MEMORY_FRACTION = 0.5, 0.5, 0.75
"""Fractions of L2 bandwidth, operations per second and memory bandwidth that a good kernel reaches."""
START = 2.5e-6
"""Seconds from one kernel of a CUDA graph to the next, without its work."""


@dataclass(frozen=True)
class Work:
    """One kernel, or a product and its filters.

    Attributes:
        moved, gathered: bytes.
        sums, products: operations by edges, and with a dense product; both with the filters.
        between: bytes of the maps between product and filters, written and read; included in `gathered`.
    """

    moved: float
    gathered: float
    sums: float
    products: float
    between: float

    def floor(self, memory: float) -> float:
        """Seconds to move sources and results once."""
        return self.moved / _speed(self.moved, memory)

    def by_edges(self, memory: float) -> float:
        """Expected seconds of the gather kernels."""
        moving = self.moved / (MEMORY_FRACTION * _speed(self.moved, memory))
        return START + max(moving, self.gathered / (GATHER_FRACTION * L2), self.sums / RATES[torch.float32])

    def dense(self, memory: float, dtype: torch.dtype) -> float:
        """Expected seconds of a dense product and a kernel of its filters."""
        moved = self.moved + self.between
        moving = moved / (MEMORY_FRACTION * _speed(moved, memory))
        return 2 * START + max(moving, self.products / (DENSE_FRACTION * RATES[dtype]))


def _speed(size: float, memory: float) -> float:
    return L2 if size < L2_SIZE else memory


def works(network: CompactNetwork, size: int, images: int, dtype: torch.dtype) -> list[Work]:
    """Stem, the stem's filters, each product with the filters that follow, and the head."""
    stem, width = network.stem, dtype.itemsize
    assert isinstance(stem, ConvStem)
    channels, side = stem.weight.shape[1], conv_out_size(size, stem.stride)
    stages = [stage for stage in network.stages if isinstance(stage, CompactStage)]
    pixels, sent = images * side**2, images * conv_out_size(side, stages[0].stride) ** 2
    nodes = len(stem.weight)
    sums = 18 * channels * nodes * pixels
    listed = [
        Work(4 * (channels * images * size**2 + nodes * pixels), 0, sums, sums, 0),
        Work(4 * nodes * pixels + width * nodes * sent, 0, 18 * nodes * sent, 18 * nodes * sent, 0),
    ]
    for number, stage in enumerate(stages):
        side, sources = conv_out_size(side, stage.stride), 0
        for step, onto in enumerate(stage.products):
            last = step + 1 == len(stage.products)
            sources += len(stage.filters[step])
            weight = dense_weight(onto)
            targets, edges = len(weight), int(weight.count_nonzero())
            stride = stages[number + 1].stride if last and number + 1 < len(stages) else 1
            is_sent = not (last and number + 1 == len(stages))
            pixels, sent = images * side**2, images * conv_out_size(side, stride) ** 2
            filtered = 18 * targets * sent if is_sent else 0
            between = 2 * width * targets * pixels if is_sent else 0
            moved = width * (sources * pixels + targets * sent) + 8 * edges
            listed.append(
                Work(
                    moved, width * edges * pixels + between, 2 * edges * pixels + filtered,
                    2 * sources * targets * pixels + filtered, between,
                )
            )  # fmt: skip
    classes, features = network.head.weight.shape
    sums = 2 * classes * features * images
    head = 4 * (classes * features + classes * images) + width * features * images * side**2
    return [*listed, Work(head, 0, sums, sums, 0)]


def predict(options: argparse.Namespace) -> Report:
    config = load_config(options.app)
    network = compact(make_network(options.app, options.wiring), "dense")
    if not isinstance(network, CompactNetwork) or not isinstance(network.stem, ConvStem):
        raise UserError("benchmarks.gpu_floors counts MobileNet graphs")
    operations = ("operations, edges", "operations, dense")
    times = ("floor", "expected, edges", "expected, dense", "expected, faster of both")
    report = Report(
        f"Prediction for a GPU, {config.name}, {config.image_size} px",
        ("maps", "batch", "moved", "gathered", *operations, "card", *times),
        notes=[
            "a prediction from counts, not a measurement; times of a batch in a CUDA graph",
            f"wiring: {options.wiring}; {sum(map(_edges, network.stages)):,} edges",
        ],
    )
    for dtype in RATES:
        for images in options.batch_sizes:
            kernels = works(network, config.image_size, images, dtype)
            for card, memory in MEMORY.items():
                seconds = _seconds(kernels, memory, dtype)
                moved, gathered, sums, products = (
                    sum(getattr(work, key) for work in kernels)
                    for key in ("moved", "gathered", "sums", "products")
                )
                report.add(
                    (
                        str(dtype).removeprefix("torch."), str(images), f"{moved / 1e6:,.0f} MB",
                        f"{gathered / 1e6:,.0f} MB", f"{sums / 1e9:.2f} G", f"{products / 1e9:.2f} G", card,
                        *(f"{1e6 * value:,.0f} µs" for value in seconds.values()),
                    ),
                    dtype=str(dtype), batch_size=images, card=card, moved=moved, gathered=gathered, sums=sums,
                    products=products, **seconds,
                )  # fmt: skip
    return report


def _seconds(kernels: list[Work], memory: float, dtype: torch.dtype) -> dict[str, float]:
    """Seconds of the network: floor, all products by edges, all dense, and the faster of both for each."""
    pairs = [(work.by_edges(memory), work.dense(memory, dtype)) for work in kernels[2:-1]]
    # Stem, its filters and head; START: the mean over pixels.
    rest = START + sum(work.by_edges(memory) for work in (*kernels[:2], kernels[-1]))
    return {
        "floor": sum(work.floor(memory) for work in kernels),
        "by_edges": rest + sum(by_edges for by_edges, _ in pairs),
        "dense": rest + sum(dense for _, dense in pairs),
        "fastest": rest + sum(map(min, pairs)),
    }


def _edges(stage: torch.nn.Module) -> int:
    assert isinstance(stage, CompactStage)
    return sum(int(dense_weight(onto).count_nonzero()) for onto in stage.products)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--app", default="apps/large_scale/mobilenetv1_dnw_x225.yml")
    parser.add_argument("--wiring", choices=WIRINGS, default="trained", help="see benchmarks.wirings")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8, 64, 256])
    run(predict, parser)
