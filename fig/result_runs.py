"""Trainings of a page of results: their commands, and the results of those that are finished."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fig.finished_runs import validate_results
from fig.train_app import ROOT
from genutil.config.command_line import parse_command_line
from genutil.exceptions import UserError
from genutil.runs.multi_seed import seed_command
from genutil.runs.past_runs import finished_results
from genutil.runs.run_folder import RESULTS


@dataclass(frozen=True)
class Experiment:
    """An edge rule on one data set.

    Attributes:
        name: of the runs, without the seed.
        app: its experiment file.
        options: of the command; FOLDER in them is the folder of all runs.
    """

    name: str
    app: str
    options: tuple[str, ...] = ()

    def command(self, folder: Path, seeds: Sequence[int], extra_options: Sequence[str] = ()) -> list[str]:
        """Its command line, after the interpreter."""
        return ["runner.py", f"app:{self.app}", *self._options(folder, seeds, extra_options)]

    def train(self, folder: Path, seeds: Sequence[int], extra_options: Sequence[str]) -> int:
        """Run the command, which resumes what was stopped and does not repeat what is finished.

        Returns:
            Its exit status.
        """
        command = self.command(folder, seeds, extra_options)
        print("python", *command, flush=True)
        return subprocess.run([sys.executable, *command], cwd=ROOT).returncode

    def finished(
        self, folder: Path, seeds: Sequence[int], extra_options: Sequence[str]
    ) -> dict[int, dict[str, Any]]:
        """The results of exactly this command, by seed, of the seeds whose runs are finished.

        Raises:
            UserError: an option is wrong, or results are damaged.
        """
        argv = [f"app:{ROOT / self.app}", *self._options(folder, seeds, extra_options)]
        config = parse_command_line(argv).config
        results = {}
        for seed in config.seeds or ():
            result = finished_results(parse_command_line(seed_command(argv, config, seed)).config)
            if result is not None:
                results[seed] = validate_results(result, Path(result["folder"]) / RESULTS)
        return results

    def results(
        self, folder: Path, seeds: Sequence[int], extra_options: Sequence[str]
    ) -> list[dict[str, Any]]:
        """`finished` of all seeds.

        Raises:
            UserError: also if a run is not finished.
        """
        finished = self.finished(folder, seeds, extra_options)
        for seed in seeds:
            if seed not in finished:
                raise UserError(
                    f"{self.name}-seed{seed}: {folder}/runs holds no finished run of this command"
                )
        return list(finished.values())

    def _options(self, folder: Path, seeds: Sequence[int], extra_options: Sequence[str]) -> list[str]:
        options = [option.replace("FOLDER", str(folder)) for option in self.options]
        folders = ["--save_dir", f"{folder}/checkpoints", "--log_dir", f"{folder}/runs"]
        return ["--name", self.name, *options, *folders, "--seeds", *map(str, seeds), *extra_options]
