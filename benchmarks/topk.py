"""Selection of the strongest edges against sorting all magnitudes, as the published code did.

python -m benchmarks.topk [--rounds N]
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.baseline import by_sorting
from benchmarks.machine import header, measure
from models.graphs.topk import num_kept, top_mask

SIZES = (
    ("static graph, 800×800", (800, 800), 0.95),
    ("MobileNet layer 4, 2048×1536", (2048, 1536), 1 - 79_626 / (2048 * 1536)),
    ("MobileNet layer 3, 3072×2816", (3072, 2816), 1 - 72_991 / (3072 * 2816)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    print(header("Selection of the strongest edges"))
    print(f"rounds: {rounds}, medians (low to high)\n")
    print("| weights | kept | sorting | selection | ratio |\n|---|---|---|---|---|")
    for name, shape, rate in SIZES:
        weight = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
        count = num_kept(weight.numel(), rate)
        assert torch.equal(by_sorting(weight, count), top_mask(weight, count))
        times = measure(
            {
                "sorting": lambda w=weight, k=count: by_sorting(w, k),
                "selection": lambda w=weight, k=count: top_mask(w, k),
            },
            rounds,
        )
        ratio = times["sorting"].median / times["selection"].median
        print(f"| {name} | {count:,} | {times['sorting']} | {times['selection']} | {ratio:.0f}× |")


if __name__ == "__main__":
    main()
