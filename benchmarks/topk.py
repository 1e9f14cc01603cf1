"""Selection of the strongest edges in steady training, against sorting all magnitudes (the published way).

    python -m benchmarks.topk [--rounds N] [--threads N] [--json FILE]

Between two selections the weights change a little, as in training; that is not timed. The clone of the
weights is the time of one pass over the memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from benchmarks.baseline import by_sorting
from benchmarks.machine import measure
from benchmarks.report import Report, run
from wirings.topk import Selector, num_kept

SIZES = (
    ("static graph, 800×800", (800, 800), 0.95),
    ("MobileNet layer 4, 2048×1536", (2048, 1536), 1 - 79_626 / (2048 * 1536)),
    ("MobileNet layer 3, 3072×2816", (3072, 2816), 1 - 72_991 / (3072 * 2816)),
)


def measure_selection(options: argparse.Namespace) -> Report:
    report = Report(
        "Selection of the strongest edges",
        ("weights", "kept", "sorting", "selection", "clone", "sorting / selection", "selection / clone"),
        notes=[f"rounds: {options.rounds}, medians (low to high)"],
    )
    for name, shape, rate in SIZES:
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(*shape, generator=generator) / shape[1] ** 0.5
        change = 1e-3 * torch.randn(*shape, generator=generator) / shape[1] ** 0.5
        selector = Selector(num_kept(weight.numel(), rate))
        candidates: dict[str, Callable[[], object]] = {
            "sorting": lambda w=weight, s=selector: by_sorting(w, s.count),
            "selection": lambda w=weight, s=selector: s.select(w),
            "clone": lambda w=weight: w.clone(),
        }
        times = measure(candidates, options.rounds, between=lambda w=weight, c=change: w.add_(c))
        assert torch.equal(by_sorting(weight, selector.count), selector.select(weight).mask())
        sorting, selection, clone = (times[key].median for key in ("sorting", "selection", "clone"))
        ratios = f"{sorting / selection:.0f}×", f"{selection / clone:.1f}"
        cells = (name, f"{selector.count:,}", *(str(times[key]) for key in candidates), *ratios)
        report.add(cells, weights=name, **{key: spread.numbers() for key, spread in times.items()})
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    run(measure_selection, parser)
