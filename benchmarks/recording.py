"""Cost of recording the wiring (`record_wiring`): time and bytes of a state, compared with the training.

    python -m benchmarks.recording [--apps APP [APP ...]] [--rounds N] [--threads N] [--json FILE]

Steps and states alternate, so that each state has other weights. The fraction of an epoch is that of one
state per epoch, the default; a run also has about seven states in its first epoch.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks.machine import measure
from benchmarks.report import Report, run
from benchmarks.steps import make_step
from genutil.config import load_config
from genutil.runs.wiring_record import RecordWriter, State
from models.wiring_state import wiring_layout, wiring_state

APPS = ("apps/small_scale/static_dnw.yml", "apps/medium_scale/mobilenetv1_dnw_x225.yml")
TRAINING_IMAGES = 50_000
"""Of CIFAR-10."""


def measure_recording(options: argparse.Namespace) -> Report:
    report = Report(
        "Recording the wiring",
        ("experiment", "edges", "step", "a state", "bytes of a state", "fraction of an epoch"),
        notes=[f"batch {options.batch_size}, {TRAINING_IMAGES:,} images an epoch; rounds: {options.rounds}"],
    )
    for app in options.apps:
        step = make_step(load_config(app, {"batch_size": options.batch_size}))
        with tempfile.TemporaryDirectory() as folder:
            writer = RecordWriter(Path(folder), wiring_layout(step.network))

            def record(writer: RecordWriter = writer, network=step.network) -> None:  # type: ignore[no-untyped-def]
                writer.append(State({"step": 0, "epoch": 0}, wiring_state(network)))

            times = measure({"step": step.run, "state": record}, options.rounds)
            size = statistics.mean(path.stat().st_size for path in Path(folder).glob("*.npz"))
            edges = sum(layer.edge_indices.size for layer in wiring_state(step.network).values())
        epoch = times["step"].median * TRAINING_IMAGES / options.batch_size
        fraction = times["state"].median / epoch
        cells = (
            Path(app).stem,
            f"{edges:,}",
            str(times["step"]),
            str(times["state"]),
            f"{size:,.0f}",
            f"{fraction:.2%}",
        )
        report.add(cells, app=app, edges=edges, bytes=size, share=fraction, state=times["state"].numbers())
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--apps", nargs="+", default=list(APPS))
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=10)
    run(measure_recording, parser)
