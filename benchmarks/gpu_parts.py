"""The benchmarks of `benchmarks.gpu`. Each prints its results as lines of JSON."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.baseline import by_sorting
from benchmarks.sparse_resnet import make_resnet_step
from benchmarks.steps import Step, make_step
from benchmarks.wirings import make_network
from genutil.config import load_config
from genutil.exceptions import USER_ERRORS
from genutil.runs.run_folder import commit, environment, processor
from wirings import topk
from wirings.compacting import compact
from wirings.profiling import profile
from wirings.radix import RadixSelect

ROOT = Path(__file__).resolve().parent.parent
STATIC, DISCRETE, CONTINUOUS = (f"apps/small_scale/{kind}_dnw.yml" for kind in (
    "static", "discrete_time", "continuous_time"
))  # fmt: skip
CIFAR_MOBILENET = "apps/medium_scale/mobilenetv1_dnw_x225.yml"
IMAGENET_MOBILENET = "apps/large_scale/mobilenetv1_dnw_x225.yml"
STEPS = (
    (STATIC, 512), (DISCRETE, 512), (CONTINUOUS, 512), (CIFAR_MOBILENET, 128),
    (IMAGENET_MOBILENET, 128), (IMAGENET_MOBILENET, 256),
)  # fmt: skip
SELECTIONS = (
    ("static graph", 640_000, 32_000),
    ("MobileNet layer 4", 3_145_728, 79_627),
    ("MobileNet layer 3", 8_650_752, 72_991),
    ("ResNet-50, all layers", 25_502_912, 2_550_292),
)


class Clock:
    """Times work on a device, within a deadline.

    Args:
        device: of the work.
        seconds: until the deadline.
        quick: call everything once, without warm-up.
    """

    def __init__(self, device: torch.device, seconds: float, quick: bool = False) -> None:
        self.device, self.quick, self._end = device, quick, time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds until the deadline."""
        return self._end - time.monotonic()

    def once(self, run: Callable[[], object]) -> float:
        """Milliseconds of a call, by events on a GPU."""
        if self.device.type != "cuda":
            started = time.perf_counter()
            run()
            return 1e3 * (time.perf_counter() - started)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        run()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    def medians(self, candidates: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
        """Median milliseconds of each, timed alternately after five calls of each as warm-up."""
        milliseconds: dict[str, list[float]] = {name: [] for name in candidates}
        warm_up, rounds = (0, 1) if self.quick else (5, rounds)
        for number in range(warm_up + rounds):
            for name, run in candidates.items():
                duration = self.once(run)
                if number >= warm_up:
                    milliseconds[name].append(duration)
        return {name: statistics.median(times) for name, times in milliseconds.items()}


def emit(table: str, **row: Any) -> None:
    """Print a result."""
    print(json.dumps({"table": table, **row}), flush=True)


def note(text: str) -> None:
    """Print a remark on the results."""
    print(json.dumps({"note": text}), flush=True)


def machine(name: str) -> dict[str, str]:
    """Card, driver, versions and commit, by name."""
    versions = {**environment()["versions"], "CUDA": str(torch.version.cuda)}
    try:
        import triton

        versions["triton"] = triton.__version__
    except ModuleNotFoundError:
        pass
    description = {
        "processor": processor(),
        "versions": ", ".join(f"{key} {value}" for key, value in versions.items()),
    }
    if name == "cuda" and torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        description["card"] = (
            f"{card.name}, {card.total_memory / 2**30:.0f} GiB, {card.multi_processor_count} SMs"
        )
        description["driver"] = _driver()
    return {**description, "commit": commit() or "unknown"}


def _driver() -> str:
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def count_kernels(run: Callable[[], object], device: torch.device) -> int | None:
    """Kernels that a call launches on a GPU, by torch's profiler; None on the CPU."""
    if device.type != "cuda":
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    events = profiler.events() or []
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in events)


def count_synchronizations(run: Callable[[], object], device: torch.device) -> int | None:
    """Number of synchronizations of a call with the GPU; None on the CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def measure_step(
    table: str, name: str, make: Callable[[], Step], batch_size: int, clock: Clock, rounds: int
) -> None:
    """One row: time, throughput, memory, kernels and synchronizations of a training step."""
    device = clock.device
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        step = make()
        median = clock.medians({name: step.run}, rounds)[name]
        memory = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else None
        kernels, synchronizations = count_kernels(step.run, device), count_synchronizations(step.run, device)
        emit(
            table, network=name, ms=median, images_per_second=round(1e3 * batch_size / median), MiB=memory,
            kernels=kernels, synchronizations=synchronizations,
        )  # fmt: skip
    except Exception as error:  # a failure must not stop the others; the page shows it
        note(f"{table}, {name}: {type(error).__name__}: {str(error).strip().splitlines()[:1]}")


def steps(clock: Clock, data_dir: str) -> None:
    """Training steps of all networks: the plain definition, this framework, and all edges in use."""
    small = {"dim": 80, "downsample_dim": 8, "feature_dim": 10} if clock.quick else {}
    for app, size in STEPS[:4] if clock.quick else STEPS:
        batch_size = 2 if clock.quick else size
        table = f"{load_config(app).name}, {load_config(app).image_size} px, batch {batch_size}"
        for name, keys in _variants(app, clock.device).items():
            if clock.remaining() < 0:
                note(f"{table}, {name}: no time left")
                continue
            config = load_config(app, {"batch_size": batch_size, **keys, **small})
            plain = name == "plain definition"
            make = partial(make_step, config, plain=plain, device=clock.device)
            measure_step(table, name, make, batch_size, clock, 3 if plain else 15)
    arch, image_size, batch_size = ("resnet18", 32, 2) if clock.quick else ("resnet50", 224, 256)
    table = f"{arch}, {image_size} px, batch {batch_size}, bf16"
    make = partial(make_resnet_step, arch, batch_size=batch_size, image_size=image_size, device=clock.device)
    variants: dict[str, dict[str, Any]] = {
        "dense": {"config": "dense"},
        "allsparse10": {"config": "allsparse10"},
    }
    if clock.device.type == "cuda":
        variants |= {f"{name}, cuda_graph": {**keys, "captured": True} for name, keys in variants.items()}
    variants["allsparse10, plain definition"] = {"config": "allsparse10", "plain": True}
    for name, keys in variants.items():
        if clock.remaining() < 0:
            note(f"{table}, {name}: no time left")
            continue
        measure_step(table, name, partial(make, amp="bf16", **keys), batch_size, clock, rounds=15)


def _variants(app: str, device: torch.device) -> dict[str, dict[str, Any]]:
    """Variants of a step by name, with the keys that they change."""
    variants: dict[str, dict[str, Any]] = {"dnw": {}, "all edges": {"graph": "complete"}}
    if device.type == "cuda":
        graph = {"cuda_graph": True, **({"ode_solver": "rk4", "ode_steps": 6} if app == CONTINUOUS else {})}
        variants[", ".join(["dnw", *graph])] = graph
        variants[", ".join(["all edges", *graph])] = {"graph": "complete", **graph}
        variants["dnw, bf16"] = {"amp": "bf16"}
        variants["dnw, compile"] = {"compile": True}
    return {**variants, "plain definition": {}}


def selection(clock: Clock, data_dir: str) -> None:
    """Selection alone, of weights that change a little in between, compared with one pass over the memory."""
    for name, size, count in SELECTIONS:
        size, count = (size // 64, count // 64) if clock.quick else (size, count)
        weight = torch.randn(size).to(clock.device)
        change = 1e-4 * torch.randn(size).to(clock.device)
        radix, selector = RadixSelect(), topk.Selector(count)
        candidates: dict[str, Callable[[], Tensor]] = {
            "radix": lambda w=weight, c=count, r=radix: r.mask(w, c),
            "as chosen at load": lambda w=weight, s=selector: s.select(w).mask(),
            "topk": lambda w=weight, c=count: topk._select_on_device(w, c),
            "kthvalue": lambda w=weight, c=count: _by_kthvalue(w, c),
            "sort": lambda w=weight, c=count: by_sorting(w, c),
            "one pass (a comparison)": lambda w=weight: w > 0,
        }
        if clock.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
            del candidates["radix"]
        row: dict[str, Any] = {}
        for label, run in candidates.items():
            if clock.remaining() < 0:
                note(f"{name}, {label}: no time left")
                continue
            times = []
            for _ in range(1 if clock.quick else 12):
                weight.add_(change)
                times.append(clock.once(run))
            row[f"{label}, ms"] = statistics.median(times[2:] or times)
        exact = {label: run for label, run in candidates.items() if label in ("radix", "as chosen at load")}
        fresh = torch.randn(size, generator=torch.Generator().manual_seed(1)).to(clock.device)
        expected = topk.top_mask(fresh.cpu(), count)
        weight.copy_(fresh)
        is_exact = all(torch.equal(run().cpu(), expected) for run in exact.values())
        gigabytes = 5e-9 * size  # four bytes read and one written per weight
        rate = (
            gigabytes / (1e-3 * row["one pass (a comparison), ms"])
            if "one pass (a comparison), ms" in row
            else None
        )
        emit("selection", weights=f"{name}: {count:,} of {size:,}", **row, GB_per_second=rate, exact=is_exact)


def _by_kthvalue(weight: Tensor, count: int) -> Tensor:
    """Boolean mask of the `count` largest magnitudes, of weights without ties."""
    magnitude = weight.abs()
    return magnitude >= magnitude.kthvalue(weight.numel() - count + 1).values


def inference(clock: Clock, data_dir: str) -> None:
    """Forward passes of DNW ×0.225 with dead nodes, plain and compact, by every engine of the device."""
    model = make_network(CIFAR_MOBILENET if clock.quick else IMAGENET_MOBILENET, "trained")
    cost = profile(model)
    note(f"live nodes {cost.live_nodes:,}, effective edges {cost.effective_edges:,}, MACs {cost.macs:,}")
    model.to(clock.device)
    size = 32 if clock.quick else 224
    for batch_size in (1,) if clock.quick else (1, 8, 64, 256):
        images = torch.randn(batch_size, 3, size, size).to(clock.device)
        with torch.inference_mode():
            expected = model(images)
        for name, network in _networks(model, clock.device):
            if clock.remaining() < 0:
                note(f"batch {batch_size}, {name}: no time left")
                continue
            try:
                for captured in (False, True) if clock.device.type == "cuda" else (False,):
                    run, logits = _prepared(network, images, captured)
                    median = clock.medians({name: run}, 15)[name]
                    emit(
                        f"inference, {size} px", batch=batch_size,
                        network=f"{name}{', CUDA graph' if captured else ''}", ms=median,
                        ms_per_image=median / batch_size,
                        error=float((logits - expected).abs().max() / expected.abs().max()),
                    )  # fmt: skip
            except Exception as error:  # a failure must not stop the others; the page shows it
                note(f"batch {batch_size}, {name}: {type(error).__name__}: {str(error).splitlines()[:1]}")


def _networks(model: nn.Module, device: torch.device) -> Iterator[tuple[str, nn.Module]]:
    yield "plain", model
    engines = ("dense", "csr", "triton", "auto") if device.type == "cuda" else ("dense", "csr", "auto")
    for engine in engines:
        try:
            yield f"compact, {engine}", compact(model, engine)
        except USER_ERRORS as error:
            note(f"engine {engine}: {error}")


def _prepared(network: nn.Module, images: Tensor, captured: bool) -> tuple[Callable[[], object], Tensor]:
    """(a call of the network, its logits); captured: as a CUDA graph."""

    def call() -> Tensor:
        with torch.inference_mode():
            logits: Tensor = network(images)
            return logits

    for _ in range(3):
        logits = call()
    if not captured:
        return call, logits
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = call()
    graph.replay()
    return graph.replay, logits


def training(clock: Clock, data_dir: str) -> None:
    """Whole trainings of static graphs on Fashion-MNIST, `dnw` and `random` alternately, as time allows."""
    app = "apps/quickstart/digits_dnw.yml" if clock.quick else "apps/quickstart/fashion_mnist_dnw.yml"
    small = ["--num_epochs", "1", "--dim", "80", "--downsample_dim", "8", "--feature_dim", "10"]
    sizes = small if clock.quick else ["--num_epochs", "160", "--data_dir", data_dir]
    device = ["--gpus", "0", "--cuda_graph"] if clock.device.type == "cuda" else ["--gpus"]
    longest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1 if clock.quick else 20):
            for graph in ("dnw", "random"):
                if clock.remaining() < longest:
                    return
                started = time.monotonic()
                where = ["--save_dir", f"{folder}/checkpoints", "--log_dir", f"{folder}/runs"]
                name = f"{graph}-{seed}"
                command = [
                    sys.executable, "runner.py", f"app:{app}", "--name", name, "--graph", graph,
                    "--seed", str(seed), *sizes, *device, *where,
                ]  # fmt: skip
                process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
                longest = max(longest, time.monotonic() - started)
                if process.returncode:
                    note(f"{name}: {' '.join(process.stderr.strip().splitlines()[-3:])}")
                    continue
                (path,) = Path(folder, "runs").glob(f"{name}*/results.json")
                results = json.loads(path.read_text())
                emit(
                    "training", graph=graph, seed=seed, epochs=results["epochs"],
                    test_accuracy=results["top1_accuracy"], best=results["best_val"],
                    effective_edges=results.get("effective_edges"), seconds=results["wall_time"],
                    ms_per_step=1e3 * results["wall_time"] / results["steps"],
                )  # fmt: skip


PARTS: dict[str, Callable[[Clock, str], None]] = {
    "steps": steps, "selection": selection, "inference": inference, "training": training,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--data_dir", default="datasets")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    clock = Clock(torch.device(options.device), options.seconds, options.quick)
    PARTS[options.part](clock, options.data_dir)


if __name__ == "__main__":
    main()
