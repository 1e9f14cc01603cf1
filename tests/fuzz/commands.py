"""The real command: odd settings of a tiny experiment, which is built,
trained for an epoch and evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st

import genutil.runs.run_folder
import runner
from genutil.config.schema import schema
from tests.fuzz.command_lines import APP
from tests.fuzz.engine import answer
from tests.fuzz.trained import train_tiny

_NUMBERS = (
    "0", "1", "2", "3", "5", "7", "8", "16", "33", "100", "-1", "0.5", "1", "0.999", "1e-3",
    "1e30", "1e-30",
    str(10**9), str(10**20), "none",
)  # fmt: skip
_WORDS = (
    "true", "false", "static", "discrete_time", "continuous", "dnw", "random", "complete", "td", "reg_td",
    "fine_tune", "dnw_no_update", "gamma", "readable", "cosine", "exp_decaying", "linear_decaying", "bf16",
    "fp16", "auto", "1 2", "2 1", "LAST", "BEST", "x", "a=1", "num_images=0", "num_images=1",
    "num_images=x",
)  # fmt: skip
_LEFT_OUT = frozenset(
    {
        "processes", "max_restarts", "gpus", "seeds", "compile", "workers", "fast_eval", "use_dgl",
        "engine",
        "bf16", "export", "num_epochs", "model", "data", "optimizer", "save_dir", "log_dir", "checkpoint_dir",
        "timeout",
    }
)  # fmt: skip
"""Keys that start processes or compilers, or name code."""
_KEYS = tuple(key for key in schema() if key not in _LEFT_OUT)
_OF_NETWORKS = ("dim", "downsample_dim", "feature_dim", "layers", "image_size", "in_channels",
"output_size",
    "batch_size", "prune_rate", "graph", "setting", "rho", "topk", "test_batch_size", "accumulate", "amp",
    "edge_scope", "lr", "checkpoint_interval_steps", "record_wiring", "record_interval",
    "data_args")  # fmt: skip


class Commands:
    """`runner.main`, each case in a process of its own."""

    in_child = True

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        genutil.runs.run_folder.commit = lambda: None  # asks git, which starts a process
        trained = train_tiny(folder)
        self.app = trained / "tiny.yml"
        self.files = {
            "LAST": str(trained / "checkpoints/tiny/last.pt"),
            "BEST": str(trained / "checkpoints/tiny/best.pt")
        }  # fmt: skip

    def cases(self) -> st.SearchStrategy[Any]:
        key = st.one_of(st.sampled_from(_OF_NETWORKS), st.sampled_from(_OF_NETWORKS), st.sampled_from(_KEYS))
        value = st.one_of(st.sampled_from(_NUMBERS), st.sampled_from(_NUMBERS), st.sampled_from(_WORDS))
        option = st.tuples(key, value)
        model = st.sampled_from(["Static", "Static", "DiscreteTime"])
        return st.tuples(model, st.lists(option, max_size=3))

    def run(self, case: Any, folder: Path) -> None:
        model, options = case
        words = [
            f"app:{APP}".replace(APP, str(self.app)),
            "--model",
            f"models.graphs.neuralgraph:{model}NeuralGraph",
        ]
        words += ["--setting", "discrete_time"] if model == "DiscreteTime" else []
        for key, value in options:
            words += [f"--{key}", *(self.files.get(part, part) for part in value.split())]
        answer(runner.main, [*words, "--num_epochs", "1", "--save_dir", "c", "--log_dir", "r"])
