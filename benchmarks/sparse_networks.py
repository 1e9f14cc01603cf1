"""Sparse networks by `wirings.compile`, compared with the same networks in ONNX Runtime and OpenVINO.

    python -m benchmarks.sparse_networks [--networks mobilenet_v1 resnet50] [--rounds N] [--batch_sizes 1 8]
        [--threads_of 1 2] [--image_size 224] [--json FILE]

Weights are random, and a random part of them is zero: 90 % of the 1×1 convolutions of MobileNetV1 ×1.0, and
95 % of all convolutions of ResNet-50 but the first. The runtimes do not use the zeros, so they show the dense
networks. All run alternately, in one process. The difference is that of the logits from torch's, relative to
the largest.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import resnet50

import wirings
from benchmarks.inference import dense_network, load_onnx
from benchmarks.machine import measure
from benchmarks.report import Report, run
from wirings.errors import WiringError
from wirings.exporting import write_network

RUNTIMES = {"ONNX Runtime": "onnxruntime", "OpenVINO": "openvino"}


def mobilenet_v1() -> nn.Module:
    """MobileNetV1 ×1.0 with a tenth of the weights of its 1×1 convolutions."""
    return _sparse(dense_network(1.0), 0.1, lambda conv: conv.kernel_size == (1, 1))


def resnet_50() -> nn.Module:
    """ResNet-50 with a twentieth of the weights of all convolutions but the first."""
    return _sparse(resnet50(weights=None).eval(), 0.05, lambda conv: conv.in_channels > 3)


NETWORKS = {"mobilenet_v1": mobilenet_v1, "resnet50": resnet_50}


def _sparse(network: nn.Module, density: float, is_sparse: Callable[[nn.Conv2d], bool]) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups == 1 and is_sparse(module):
            used = torch.rand(module.weight.shape, generator=generator) < density
            module.weight.data *= used / density**0.5  # keeps the size of the outputs
    return network


def make_all(
    network: nn.Module, shape: tuple[int, ...], threads: int
) -> tuple[dict[str, Callable[[Tensor], object]], list[str]]:
    """(the runs that are possible here, by name; messages about the others)."""
    made: dict[str, Callable[[Tensor], object]] = {"native": wirings.compile(network, torch.randn(1, *shape))}
    missing = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        for name, package in RUNTIMES.items():
            try:
                if not path.exists():
                    write_network(network, None, path, shape)
                made[name] = load_onnx(package, path, threads)
            except (WiringError, ImportError) as error:
                missing.append(f"{name}: not measured: {error}")
    return made, missing


def measure_networks(options: argparse.Namespace) -> Report:
    shape = (3, options.image_size, options.image_size)
    columns = ("network", "threads", "batch", "engine", "for an image", "this / native", "difference")
    report = Report(
        "Sparse networks by wirings.compile",
        columns,
        notes=[f"rounds: {options.rounds}, medians (low to high)"],
    )
    for name in options.networks:
        torch.manual_seed(0)
        network = NETWORKS[name]()
        for threads in options.threads_of:
            torch.set_num_threads(threads)
            made, missing = make_all(network, shape, threads)
            for batch_size in options.batch_sizes:
                images = torch.randn(batch_size, *shape)
                with torch.inference_mode():
                    expected = network(images)
                difference = float((made["native"](images) - expected).abs().max() / expected.abs().max())  # type: ignore[operator]
                times = measure(
                    {key: partial(call, images) for key, call in made.items()},
                    options.rounds,
                    2,
                    pause_first=True,
                )
                for engine, spread in times.items():
                    ratio = spread.median / times["native"].median
                    low, median, high = (
                        1e3 * value / batch_size for value in (spread.low, spread.median, spread.high)
                    )
                    report.add(
                        (
                            name, str(threads), str(batch_size), engine,
                            f"{median:.2f} ms ({low:.2f} to {high:.2f})", f"{ratio:.2f}",
                            f"{difference:.0e}" if engine == "native" else "",
                        ),
                        network=name, threads=threads, batch_size=batch_size, engine=engine, ratio=ratio,
                        **spread.numbers(),
                    )  # fmt: skip
    report.notes += dict.fromkeys(missing)
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads_of", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--image_size", type=int, default=224)
    run(measure_networks, parser)
