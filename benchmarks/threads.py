"""A training step with one thread and with several, alone and beside programs that use all processors.

    python -m benchmarks.threads [--rounds N] [--threads N] [--busy N] [--app FILE ...] [--json FILE]

Images are random, so no data set is needed. `work` is what `threads: auto` decides by.
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
def _beside(count: int) -> Iterator[None]:
    """Within it, so many processes calculate without a pause."""
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_spin, daemon=True) for _ in range(count)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.join()


def _with_threads(threads: int, step: Callable[[], None]) -> None:
    torch.set_num_threads(threads)
    step()


def measure_threads(options: argparse.Namespace) -> Report:
    several = options.threads
    report = Report(
        f"Training step with 1 and {several} threads",
        ("step", "work", "beside", "1 thread", f"{several} threads", f"1 / {several}"),
        notes=[f"rounds: {options.rounds}, medians (low to high), in turn"],
    )
    for app, changes in {app: APPS.get(app, {}) for app in options.app}.items():
        config = load_config(app, changes)
        step = make_step(config)
        work = work_of_step(step.network, config.batch_size, config.image_size)
        candidates = {
            str(threads): functools.partial(_with_threads, threads, step.run) for threads in (1, several)
        }
        for busy in (0, options.busy):
            with _beside(busy):
                times = measure(candidates, options.rounds, warm_up=2)
            one, more = times["1"], times[str(several)]
            ratio = one.median / more.median
            cells = (f"{app}, batch {config.batch_size}", f"{work:.1e}", f"{busy} processes")
            report.add(
                (*cells, str(one), str(more), f"{ratio:.2f}"),
                app=app, work=work, busy=busy, one=one.numbers(), several=more.numbers(), ratio=ratio,
            )  # fmt: skip
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--app", nargs="+", default=[*APPS], metavar="FILE")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--busy", type=int, default=2, metavar="N", help="processes beside")
    run(measure_threads, parser)
