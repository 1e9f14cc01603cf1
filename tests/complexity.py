"""What every shipped experiment costs at seed 0; `python -m tests.complexity` writes the golden file."""

from __future__ import annotations

import json

import torch
from torch import nn

from genutil.config import load_config
from models import build_model
from tests.conftest import ROOT
from wirings.profiling import profile

GOLDEN = ROOT / "tests" / "goldens" / "complexity.json"
APPS = sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / "apps").glob("*/*.yml") if path.parent.name != "_base"
)


def cost_of(model: nn.Module) -> dict[str, int]:
    """Counts of a network."""
    cost = profile(model)
    return {
        "params": cost.params,
        "macs": cost.macs,
        "potential_edges": sum(layer.potential for layer in cost.per_layer),
        "edges": cost.edges,
        "effective_edges": cost.effective_edges,
        "live_nodes": cost.live_nodes,
    }


if __name__ == "__main__":
    counts = {}
    for app in APPS:
        torch.manual_seed(0)
        counts[app] = cost_of(build_model(load_config(ROOT / app)))
    GOLDEN.write_text(json.dumps(counts, indent=1) + "\n")
