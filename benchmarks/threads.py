"""A training step with one thread and with several, alone and while other processes use all processors.

    python -m benchmarks.threads [--rounds N] [--threads N] [--busy N] [--app FILE ...] [--json FILE]

Images are random, so no data set is needed. `work` is the criterion of `threads: auto`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import multiprocessing
from collections.abc import Callable, Iterator

import torch

from benchmarks.machine import measure
from benchmarks.report import Report, run
from benchmarks.steps import make_step
from genutil.config import load_config
from genutil.threads import work_of_step

APPS = {
    "apps/quickstart/wiring_demo.yml": {},
    "apps/quickstart/digits_dnw.yml": {},
    "apps/small_scale/static_dnw.yml": {"batch_size": 128},
    "apps/medium_scale/mobilenetv1_dnw_x225.yml": {"batch_size": 32},
}


def _spin() -> None:
    while True:
        pass


@contextlib.contextmanager
def _busy_processes(count: int) -> Iterator[None]:
    """Context in which `count` processes compute without a pause."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_spin, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def _with_threads(threads: int, step: Callable[[], None]) -> None:
    torch.set_num_threads(threads)
    step()


def measure_threads(options: argparse.Namespace) -> Report:
    several = options.threads
    report = Report(
        f"Training step with 1 and {several} threads",
        ("step", "work", "busy processes", "1 thread", f"{several} threads", f"1 / {several}"),
        notes=[f"rounds: {options.rounds}, medians (low to high), alternately"],
    )
    for app, changes in {app: APPS.get(app, {}) for app in options.app}.items():
        config = load_config(app, changes)
        step = make_step(config)
        work = work_of_step(step.network, config.batch_size, config.image_size)
        candidates = {
            str(threads): functools.partial(_with_threads, threads, step.run) for threads in (1, several)
        }
        for busy in (0, options.busy):
            with _busy_processes(busy):
                times = measure(candidates, options.rounds, warm_up=2)
            single, multiple = times["1"], times[str(several)]
            ratio = single.median / multiple.median
            cells = (f"{app}, batch {config.batch_size}", f"{work:.1e}", str(busy))
            report.add(
                (*cells, str(single), str(multiple), f"{ratio:.2f}"),
                app=app, work=work, busy=busy, one=single.numbers(), several=multiple.numbers(), ratio=ratio,
            )  # fmt: skip
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--app", nargs="+", default=[*APPS], metavar="FILE")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--busy", type=int, default=2, metavar="N", help="number of busy processes")
    run(measure_threads, parser)
