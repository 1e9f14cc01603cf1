"""Runs to draw from: results with their metrics, as trainings leave them."""

import json

CONFIG = {
    "model": "models.graphs.neuralgraph:StaticNeuralGraph", "data": "data.cifar10:CIFAR10", "graph": "dnw",
    "prune_rate": 0.95, "num_epochs": 3, "lr": 0.1,
}  # fmt: skip


def leave_run(runs, name, seed, tops, **changes):
    """The folder of a finished training whose validation accuracies are `tops`."""
    folder = runs / f"{name}-seed{seed}-20260101"
    folder.mkdir(parents=True)
    lines = [
        {"epoch": epoch, "phase": phase, "top1_accuracy": top - 5 * (phase == "train"), "CELoss": 1.0}
        for epoch, top in enumerate(tops)
        for phase in ("train", "val")
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = {
        "name": f"{name}-seed{seed}", "seed": seed, "top1_accuracy": tops[-1], "epochs": len(tops),
        "params": 41_000 + seed, "macs": 2_500_000, "wall_time": 90.0, "commit": "0123456789abcdef",
        "device": "cpu", "folder": str(folder), "config": {**CONFIG, **changes}, "platform": "x",
        "versions": {"python": "3"},
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results))
    return folder
