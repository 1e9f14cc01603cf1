"""Runs to draw from: results with their metrics, as trainings leave them."""

import json

import yaml

from genutil.config import load_config
from genutil.runs.run_folder import run_settings
from tests.conftest import ROOT

STATIC_DNW = run_settings(load_config(ROOT / "apps" / "small_scale" / "static_dnw.yml")).values


def leave_run(
    runs, name, seed, tops, start="20260101-000000", first=0, finished=True, results=None, **changes
):
    """The folder of a training whose validation accuracies are `tops`.

    Args:
        start: when it began.
        first: epoch of the first accuracy, where it went on with an earlier part.
        finished: whether it got to its end; else it was stopped.
        results: entries of `results.json` that differ from the defaults.
        changes: of the settings, which are those of static_dnw with three epochs.
    """
    folder = runs / f"{name}-seed{seed}-{start}"
    folder.mkdir(parents=True)
    config = {**STATIC_DNW, "num_epochs": 3, **changes, "name": f"{name}-seed{seed}", "seed": seed}
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    lines = [
        {"epoch": epoch, "phase": phase, "top1_accuracy": top - 5 * (phase == "train"), "CELoss": 1.0}
        | ({"epoch_time": 60.0} if phase == "train" else {})
        for epoch, top in enumerate(tops, first)
        for phase in ("train", "val")
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    content = {
        "name": f"{name}-seed{seed}", "seed": seed, "top1_accuracy": tops[-1], "epochs": first + len(tops),
        "params": 41_000 + seed, "macs": 2_500_000 + 100_000 * seed, "wall_time": 90.0,
        "commit": "0123456789abcdef", "device": "cpu", "folder": str(folder), "config": config,
        "platform": "x", "versions": {"python": "3"}, **(results or {}),
    }  # fmt: skip
    if finished:
        (folder / "results.json").write_text(json.dumps(content))
    return folder
