"""What runs leave, read by the programs of `fig` and by runs that follow: damaged, odd, cut off."""

from __future__ import annotations

import importlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hypothesis import strategies as st

import fig.curves
import fig.pareto
import fig.table
import fig.wiring_gif
import fig.wiring_page
import genutil.runs.run_folder
from genutil.config import load_config
from genutil.distributed.rank_info import RankInfo
from genutil.runs.checkpoint_folder import CheckpointFolder
from genutil.runs.multi_seed import finished_results
from genutil.runs.run_folder import RunFolder, run_settings
from genutil.runs.wiring_record import RecordWriter, read_record
from tests.fuzz.engine import answer
from tests.fuzz.mutations import byte_edits, document_edits, edited, edited_document, literal, odd_values
from tests.fuzz.trained import train_tiny

_TYPES = ("?", "u1", "u2", "u4", "i8", "f2", "f4", "f8", "c8", "U3", "S3", "M8[s]", "f16")


class Records:
    """`wiring/`, `results.json`, `metrics.jsonl`, `config.yml`."""

    in_child = False

    def __init__(self, folder: Path) -> None:
        importlib.import_module("matplotlib.font_manager")  # asks the system for its fonts, once
        genutil.runs.run_folder.commit = lambda: None  # asks git, which starts a process
        self.trained = train_tiny(folder, record_wiring=True)
        (self.run_folder,) = (folder / "runs").iterdir()
        self.config = load_config(folder / "tiny.yml")
        self.results = json.loads((self.run_folder / "results.json").read_text())
        self.metrics = [
            json.loads(line) for line in (self.run_folder / "metrics.jsonl").read_text().splitlines()
        ]
        self.settings = yaml.safe_load((self.run_folder / "config.yml").read_text())
        self.record = self.run_folder / "wiring"
        self.layout = json.loads((self.record / "layout.json").read_text())
        self.state_files = sorted(path.name for path in self.record.glob("*.npz"))
        self.members = _members(self.record / self.state_files[0])
        self.texts = ["layout", "state.npy"]
        self.programs: dict[str, Callable[[Path, Path], None]] = {
            "table": lambda run, folder: answer(fig.table.main, [run]),
            "all tables": lambda run, folder: [
                answer(fig.table.main, [run.parent, "--format", form]) for form in fig.table.FORMATS
            ],
            "curves": lambda run, folder: answer(fig.curves.main, [run.parent, "--output", folder / "c"]),
            "pareto": lambda run, folder: answer(fig.pareto.main, [run.parent, "--output", folder / "p"]),
            "page": lambda run, folder: answer(fig.wiring_page.main, [run, "--states", 3]),
            "gif": lambda run, folder: answer(fig.wiring_gif.main, [run, "--frames", 2]),
            "append": self._append,
            "finished": lambda run, folder: finished_results(
                self.config.model_copy(update={"log_dir": str(run.parent), "num_epochs": 2})
            ),
            "run again": lambda run, folder: self._run_again(run),
        }

    def cases(self) -> st.SearchStrategy[Any]:
        bytes_of = st.sampled_from(
            ["results.json", "metrics.jsonl", "config.yml", "wiring/layout.json", "wiring/000000.npz"]
        )
        place = st.integers(0, 500)
        of_runs = st.sampled_from(["table", "all tables"] * 6 + ["curves", "pareto", "finished", "finished"])
        of_metrics = st.sampled_from(["table"] * 5 + ["curves", "run again", "run again"])
        of_wirings = st.sampled_from(["page"] * 8 + ["append"] * 6 + ["gif"])
        every = st.sampled_from(
            ["table"] * 4 + ["page"] * 8 + ["append"] * 4 + ["curves", "finished", "run again"]
        )
        array = st.tuples(
            st.sampled_from(_TYPES), st.lists(st.integers(0, 50), max_size=3), st.integers(-2, 300)
        )
        return st.one_of(
            st.tuples(st.just("bytes"), every, bytes_of, byte_edits()),
            st.tuples(st.just("results"), of_runs, document_edits()),
            st.tuples(st.just("metrics"), of_metrics, place, document_edits()),
            st.tuples(st.just("settings"), of_metrics, document_edits()),
            st.tuples(st.just("missing"), every, bytes_of),
            st.tuples(st.just("member"), of_wirings, place, byte_edits()),
            st.tuples(st.just("text"), of_wirings, st.one_of(st.just(0), place), document_edits()),
            st.tuples(st.just("array"), of_wirings, place, array),
            st.tuples(st.just("note"), st.just("run again"), odd_values()),
        )

    def run(self, case: Any, folder: Path) -> None:
        kind, program, *given = case
        runs = folder / "runs"
        for name in ("tiny-20260101-000000", "tiny-20260102-000000"):
            shutil.copytree(self.run_folder, runs / name)
        run = runs / "tiny-20260102-000000"
        getattr(self, f"_{kind}")(run, *given)
        self.programs[program](run, folder)

    def _bytes(self, run: Path, name: str, edits: Any) -> None:
        (run / name).write_bytes(edited((run / name).read_bytes(), edits))

    def _results(self, run: Path, edits: Any) -> None:
        (run / "results.json").write_text(json.dumps(edited_document(self.results, edits)))

    def _metrics(self, run: Path, place: int, edits: Any) -> None:
        lines = list(self.metrics)
        lines[place % len(lines)] = edited_document(lines[place % len(lines)], edits)
        (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    def _settings(self, run: Path, edits: Any) -> None:
        (run / "config.yml").write_text(yaml.safe_dump(edited_document(self.settings, edits)))

    def _missing(self, run: Path, name: str) -> None:
        (run / name).unlink()

    def _member(self, run: Path, place: int, edits: Any) -> None:
        name = sorted(self.members)[place % len(self.members)]
        self._change(run, place, name, edited(self.members[name], edits))

    def _text(self, run: Path, place: int, edits: Any) -> None:
        if self.texts[place % len(self.texts)] == "layout":
            (run / "wiring" / "layout.json").write_text(json.dumps(edited_document(self.layout, edits)))
            return
        before = json.loads(str(np.load(io.BytesIO(self.members["state.npy"]))))
        self._change(run, place, "state.npy", _npy(np.array(json.dumps(edited_document(before, edits)))))

    def _array(self, run: Path, place: int, array: Any) -> None:
        kind, shape, value = array
        name = sorted(self.members)[place % len(self.members)]
        with np.errstate(all="ignore"):
            filled = np.full(shape, value).astype(kind)
        self._change(run, place, name, _npy(filled))

    def _note(self, run: Path, value: Any) -> None:
        shutil.copytree(self.trained / "checkpoints" / "tiny", run.parent / "checkpoints")
        (run.parent / "checkpoints" / ".run").write_text(json.dumps(literal(value)))

    def _change(self, run: Path, place: int, name: str, content: bytes) -> None:
        """Replace a member of a state's file."""
        path = run / "wiring" / self.state_files[place % len(self.state_files)]
        members = {**_members(path), name: content}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for member, data in members.items():
                file.writestr(member, data)

    def _append(self, run: Path, folder: Path) -> None:
        """As a run does that is resumed in the folder of an earlier start."""
        record = read_record(self.record)
        RecordWriter(run / "wiring", record.layout, step=4).append(record.states[-1])

    def _run_again(self, run: Path) -> None:
        """As a start after a failure does."""
        settings = run_settings(self.config)
        CheckpointFolder(run.parent / "checkpoints", run_id="this").close()
        again = RunFolder(settings, earlier_dir=run, step=3)
        again.metrics()
        again.write_results({}, RankInfo(), "cpu")


def _members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def _npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()
