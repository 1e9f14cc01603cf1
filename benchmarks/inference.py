"""Inference of a wiring by every engine, compared with dense networks in ONNX Runtime and OpenVINO.

    python -m benchmarks.inference [--app APP] [--wiring trained] [--rounds N] [--batch_sizes 1 8 32]
        [--threads_of 1 2] [--only TEXT ...] [--no-memory] [--json FILE]

They run alternately, in one process. --wiring: see benchmarks.wirings. Onnxruntime and OpenVINO
are measured if they are installed. Size: bytes of weights and edges, or of the ONNX file. Memory: peak of the
largest batch with most threads, above that of the network after one image, in its own process.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import measure
from benchmarks.peak import peak_memory
from benchmarks.report import Report, run
from benchmarks.roofline import executed_macs
from benchmarks.wirings import WIRINGS, make_network
from genutil.config import load_config
from models.basic.mobilenetv1cifar import MobileNetV1CIFAR
from wirings.compacting import compact
from wirings.errors import WiringError
from wirings.exporting import export
from wirings.native import NativeNetwork
from wirings.profiling import profile

Network = Callable[[Tensor], object]
ENGINES = ("plain", "dense", "csr", "dgl", "native", "native, bf16")
SHAPE = (3, 224, 224)
RUNTIMES = {
    "onnxruntime, this wiring": ("onnxruntime", None),
    "onnxruntime, MobileNetV1 ×0.25": ("onnxruntime", 0.25),
    "onnxruntime, MobileNetV1 ×0.5": ("onnxruntime", 0.5),
    "onnxruntime, ShuffleNetV2 ×0.5": ("onnxruntime", "shufflenet_v2_x0_5"),
    "OpenVINO, this wiring": ("openvino", None),
    "OpenVINO, MobileNetV1 ×0.25": ("openvino", 0.25),
    "OpenVINO, MobileNetV1 ×0.5": ("openvino", 0.5),
    "OpenVINO, ShuffleNetV2 ×0.5": ("openvino", "shufflenet_v2_x0_5"),
}
"""Package, and the dense network: width of a MobileNetV1, or name in torchvision; None: the wiring's own ONNX
file.
"""


def dense_network(name: float | str) -> nn.Module:
    """A network of torchvision, or MobileNetV1 of a width for photographs: with a stem of stride 2."""
    if isinstance(name, str):
        torchvision: Any = importlib.import_module("torchvision")
        network: nn.Module = torchvision.models.get_model(name, weights=None)
        return network.eval()
    model = MobileNetV1CIFAR(3, SHAPE[1], 1000, name)
    model.conv1.stride = (2, 2)
    return model.eval()


def make(name: str, model: nn.Module, threads: int) -> tuple[Network, int]:
    """(a network, its size in bytes).

    Raises:
        WiringError, ImportError: a library or a compiler is not installed.
    """
    if name in RUNTIMES:
        package, dense = RUNTIMES[name]
        importlib.import_module(package)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "network.onnx")
            export(model if dense is None else dense_network(dense), path, SHAPE)
            return load_onnx(package, path, threads), path.stat().st_size
    engine, _, dtype = name.partition(", ")
    network = model if name == "plain" else compact(model, engine, bf16=dtype == "bf16")
    if isinstance(network, NativeNetwork):
        network(torch.zeros(1, *SHAPE))
        return network, network.program_bytes()
    tensors = [*network.parameters(), *network.buffers()]
    return network, sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def load_onnx(package: str, path: Path, threads: int) -> Network:
    """The file in onnxruntime or OpenVINO."""
    runtime: Any = importlib.import_module(package)
    if package == "openvino":
        options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        compiled = runtime.Core().compile_model(str(path), "CPU", options)
        return lambda images: compiled(images.numpy())
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = runtime.InferenceSession(path.read_bytes(), settings, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images.numpy()})


def make_all(
    model: nn.Module, threads: int, only: Sequence[str]
) -> tuple[dict[str, tuple[Network, int]], list[str]]:
    """(the chosen networks that can run here, by name; messages about those that cannot)."""
    made, missing = {}, []
    for name in (*ENGINES, *RUNTIMES):
        if only and not any(text in name for text in only):
            continue
        try:
            made[name] = make(name, model, threads)
        except (WiringError, ImportError) as error:
            missing.append(f"{name}: not measured: {error}")
    return made, missing


def large_batch(app: str, wiring: str, name: str, batch_size: int, threads: int) -> Callable[[], object]:
    torch.set_num_threads(threads)
    network, _ = make(name, make_network(app, wiring), threads)
    images = torch.randn(batch_size, *SHAPE)
    _without_gradients(network, images[:1])  # libraries initialize in their first call
    return partial(_without_gradients, network, images)


def _without_gradients(network: Network, images: Tensor) -> object:
    with torch.inference_mode():
        return network(images)


def measure_inference(options: argparse.Namespace) -> Report:
    model = make_network(options.app, options.wiring)
    cost = profile(model)
    native = compact(model, "native")
    assert isinstance(native, NativeNetwork)
    executed = executed_macs(native, SHAPE[1])
    largest = max(options.batch_sizes)
    columns = ("threads", "batch", "network", "for an image", "this / native", "memory", "size")
    report = Report(f"Inference of {load_config(options.app).name}, 224 px", columns)
    report.notes = [
        f"live nodes {cost.live_nodes:,}, edges {cost.edges:,} ({cost.effective_edges:,} effective), "
        f"MACs {cost.macs / 1e6:.1f}M as published ones are counted, {executed / 1e6:.1f}M executed; "
        f"wiring: {options.wiring}; rounds: {options.rounds}, medians (low to high); "
        f"memory: of batch {largest}, {max(options.threads_of)} threads"
    ]
    peaks: dict[str, int] = {}
    for threads in options.threads_of:
        torch.set_num_threads(threads)
        made, missing = make_all(model, threads, options.only)
        if options.memory and not peaks:
            max_threads = max(options.threads_of)
            args = (options.app, options.wiring)
            peaks = {name: peak_memory(large_batch, *args, name, largest, max_threads) for name in made}
        for batch_size in options.batch_sizes:
            images = torch.randn(batch_size, *SHAPE)
            calls = {
                name: partial(_without_gradients, network, images) for name, (network, _) in made.items()
            }
            times = measure(calls, options.rounds, 2, pause_first=True)
            for name, spread in times.items():
                ratio = spread.median / times["native"].median if "native" in times else float("nan")
                low, median, high = (
                    1e3 * value / batch_size for value in (spread.low, spread.median, spread.high)
                )
                report.add(
                    (
                        str(threads), str(batch_size), name, f"{median:.2f} ms ({low:.2f} to {high:.2f})",
                        f"{ratio:.2f}", f"{peaks[name] / 2**20:.0f} MiB" if name in peaks else "",
                        f"{made[name][1] / 1e6:.1f} MB",
                    ),
                    threads=threads, batch_size=batch_size, network=name, ratio=ratio,
                    memory=peaks.get(name), size=made[name][1], **spread.numbers(),
                )  # fmt: skip
    report.notes += missing
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--app", default="apps/large_scale/mobilenetv1_dnw_x225.yml")
    parser.add_argument("--wiring", choices=WIRINGS, default="trained", help="see benchmarks.wirings")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--threads_of", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--only", nargs="+", default=[], help="networks with one of these texts in their names"
    )
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    run(measure_inference, parser)
