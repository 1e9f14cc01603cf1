"""All benchmarks, one after the other: `python -m benchmarks` writes benchmarks/RESULTS.md.

    python -m benchmarks [--quick] [--output FILE]

Each runs in its own process. All take about twelve minutes on two cores; nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STATIC = "apps/small_scale/static_dnw.yml"
DISCRETE = "apps/small_scale/discrete_time_dnw.yml"
CONTINUOUS = "apps/small_scale/continuous_time_dnw.yml"
MOBILENET = "apps/medium_scale/mobilenetv1_dnw_x225.yml"
WIDER = "apps/large_scale/mobilenetv1_dnw_x3.yml"
BATCH_SIZES = {STATIC: 128, DISCRETE: 64, CONTINUOUS: 16, MOBILENET: 32}
ROUNDS = {STATIC: 10, DISCRETE: 8, CONTINUOUS: 4, MOBILENET: 8}


def commands(quick: bool) -> list[list[str]]:
    """Modules with their arguments. `quick`: minimal sizes, to check that they run."""
    if quick:
        once, small = ["--rounds", "1"], ["--batch_size", "2"]
        steps = [["train_step", app, *small, *once] for app in BATCH_SIZES]
        peaks = [["memory", app, *small, *once, "--steps", "1"] for app in BATCH_SIZES]
        others = [["data_loading", *once, "--images", "600"], ["fast_eval", *once, "--batch_sizes", "1"]]
        others += [["distributed", STATIC, *small, *once, "--steps", "1"]]
        others += [["scaling", STATIC, *once, "--processes", "2", "--images", "4"]]
        others += [["recording", *small, *once], ["wiring_page", "--edges", "500", "--states", "3", *once]]
        inference = ["inference", *once, "--batch_sizes", "1", "--threads_of", "1", "--no-memory"]
        others += [
            inference,
            [*inference, "--wiring", "alive", "--only", "native"],
            [*inference, "--wiring", "spread", "--only", "native"],
            [*inference, "--app", WIDER, "--wiring", "alive"],
            ["roofline", *once],
            ["roofline", *once, "--wiring", "alive"],
            [
                "sparse_networks",
                *once,
                "--networks",
                "mobilenet_v1",
                "--batch_sizes",
                "1",
                "--threads_of",
                "1",
                "--image_size",
                "64",
            ],
        ]
        others += [["threads", "--app", "apps/quickstart/wiring_demo.yml", "--busy", "1", *once]]
        others += [["sparse_resnet", "--arch", "resnet18", *small, "--image_size", "32", *once]]
        others += [["wire", *small, "--image_size", "32", *once], ["startup", *once]]
        return [["topk", *once], *steps, *peaks, *others]
    sizes = {app: ["--batch_size", str(size)] for app, size in BATCH_SIZES.items()}
    steps = [["train_step", app, *size, "--rounds", str(ROUNDS[app])] for app, size in sizes.items()]
    peaks = [["memory", app, *size] for app, size in sizes.items()]
    others = [
        ["data_loading"],
        ["fast_eval"],
        ["inference"],
        ["inference", "--wiring", "alive", "--threads_of", "2", "--no-memory"],
        ["inference", "--wiring", "spread", "--threads_of", "2", "--no-memory"],
        ["inference", "--app", WIDER, "--wiring", "alive", "--threads_of", "2", "--no-memory"],
        ["roofline"],
        ["roofline", "--wiring", "alive"],
        ["sparse_networks"],
        ["distributed"],
        ["scaling"],
        ["threads"],
        ["recording"],
        ["wiring_page"],
        ["sparse_resnet"],
        ["wire"],
        ["startup"],
    ]
    return [["topk"], *steps, *peaks, *others]


def measure_one(command: list[str]) -> dict[str, Any]:
    """The report that a benchmark writes.

    Raises:
        subprocess.CalledProcessError: it failed; its error is on standard error.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        module, *arguments = command
        subprocess.run(
            [sys.executable, "-m", f"benchmarks.{module}", *arguments, "--json", str(path)], check=True
        )
        report: dict[str, Any] = json.loads(path.read_text())
        return report


def as_page(reports: list[tuple[list[str], dict[str, Any]]], minutes: float) -> str:
    """The reports as one page of Markdown."""
    machine = reports[0][1]["machine"]
    lines = ["# Benchmarks", "", "Written by `make bench`.", ""]
    lines += [f"- {name}: {value}" for name, value in machine.items()]
    lines.append(f"- time of all benchmarks: {minutes:.1f} minutes")
    for command, report in reports:
        lines += [
            "",
            f"## {report['title']}",
            "",
            f"`python -m benchmarks.{' '.join(command)}`",
            "",
            report["body"],
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="minimal sizes, to check that all of them run")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("RESULTS.md"))
    options = parser.parse_args()
    started = time.monotonic()
    reports = [(command, measure_one(command)) for command in commands(options.quick)]
    page = as_page(reports, (time.monotonic() - started) / 60)
    options.output.write_text(page)
    print(f"\nwritten: {options.output}")


if __name__ == "__main__":
    main()
