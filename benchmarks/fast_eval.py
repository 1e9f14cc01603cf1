"""Evaluation of a wiring: the plain network, and the compact one with each engine.

    python -m benchmarks.fast_eval [--app APP] [--rounds N] [--batch_sizes 1 8] [--threads 2]
        [--wiring trained] [--json FILE]

--wiring: see benchmarks.wirings. The plain network caches its selection.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

from benchmarks.machine import Spread, measure
from benchmarks.report import Report, run
from benchmarks.wirings import WIRINGS, make_network
from genutil.config import load_config
from wirings.compacting import compact
from wirings.engines import ENGINES
from wirings.errors import WiringError
from wirings.profiling import profile


def make_networks(model: nn.Module) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """(the plain network and the compact ones that can run here, messages about those that cannot)."""
    available: dict[str, nn.Module] = {"plain": model}
    missing = {}
    for engine in ENGINES:
        try:
            available[engine] = compact(model, engine)
        except WiringError as error:
            missing[engine] = str(error)
    return available, missing


def compare(
    networks: dict[str, nn.Module], images: torch.Tensor, rounds: int
) -> Iterator[tuple[str, Spread, float, float]]:
    """(name, time, time of the plain network over it, error of its logits) of each network."""
    with torch.inference_mode():
        logits = {name: network(images) for name, network in networks.items()}
        times = measure({name: partial(network, images) for name, network in networks.items()}, rounds, 2)
    plain = logits["plain"]
    for name, spread in times.items():
        error = float((logits[name] - plain).abs().max() / plain.abs().max())
        yield name, spread, times["plain"].median / spread.median, error


def measure_engines(options: argparse.Namespace) -> Report:
    model = make_network(options.app, options.wiring)
    cost, size = profile(model), load_config(options.app).image_size
    available, missing = make_networks(model)
    report = Report(
        f"Evaluation of {options.app}, wiring: {options.wiring}, {size} px",
        ("batch", "network", "forward pass", "for an image", "plain / this", "error"),
        notes=[
            f"live nodes {cost.live_nodes:,}, edges {cost.edges:,} ({cost.effective_edges:,} effective), "
            f"MACs {cost.macs:,}, rounds: {options.rounds}, medians (low to high); "
            "error: largest difference of logits over the largest logit",
            *(f"{engine}: not measured: {reason}" for engine, reason in missing.items()),
        ],
    )
    for batch_size in options.batch_sizes:
        images = torch.randn(batch_size, 3, size, size)
        for name, spread, ratio, error in compare(available, images, options.rounds):
            per_image = f"{1e3 * spread.median / batch_size:.2f} ms"
            report.add(
                (str(batch_size), name, str(spread), per_image, f"{ratio:.2f}", f"{error:.1e}"),
                batch_size=batch_size, network=name, ratio=ratio, **spread.numbers(),
            )  # fmt: skip
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--app", default="apps/large_scale/mobilenetv1_dnw_x225.yml")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--wiring", choices=WIRINGS, default="trained", help="see benchmarks.wirings")
    run(measure_engines, parser)
