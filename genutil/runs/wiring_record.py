"""The record of a wiring during training: a folder `wiring/` with one file per state.

- `layout.json`: the wired layers, as `models.wiring_state.wiring_layout` describes them.
- `000000.npz`, `000001.npz`, …: states in the order of their steps. NumPy reads them (`numpy.load`):
  - `state`: JSON text; step, epoch, and the metrics at that step.
  - `<layer>/index_deltas`, `<layer>/weights`: of the edges in use, by their indices in the flattened
    (targets, sources) matrix, ascending: the difference to the index before (the first: to −1), and the
    weight in 16 bits.
  - `<layer>/live`: packed bits, one for each source; see `LayerState`.

Each file is written atomically, so a state is either complete or absent. A damaged state is skipped by
readers, and removed by the next writer.
"""

from __future__ import annotations

import io
import json
import logging
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genutil.exceptions import UserError
from genutil.text_files import parse_json, read_json
from wirings.files import write_atomically

Array = NDArray[Any]

_LAYOUT = "layout.json"
_MAX_NODES, _MAX_STEP, _MAX_BYTES = 2**20, 2**53, 2**28
"""Numbers of nodes, steps and bytes of an array beyond which a record counts as damaged."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LayerState:
    """The edges in use of one wired layer.

    Attributes:
        edge_indices: of the edges in the flattened (targets, sources) matrix, ascending.
        weights: of these edges; the record keeps 16 bits of each.
        live: boolean, which sources have an edge on a path from image to logits.
    """

    edge_indices: NDArray[np.int64]
    weights: Array
    live: NDArray[np.bool_]


@dataclass(frozen=True)
class State:
    """A network's wiring at one step.

    Attributes:
        numbers: `step`, `epoch`, and the metrics.
        layers: by the names of the layout.
    """

    numbers: Mapping[str, float]
    layers: Mapping[str, LayerState]


@dataclass(frozen=True)
class Record:
    """All states of a run.

    Attributes:
        layout: of the wired layers.
        states: in the order of their steps.
    """

    layout: Sequence[Mapping[str, Any]]
    states: Sequence[State]


class RecordWriter:
    """Appends states to a record.

    Args:
        folder: of the record; the states of an earlier start of the run are kept.
        layout: of the wired layers, as plain values; `name`, `targets` and `sources` are needed.
        step: states of later steps are removed, and so are damaged ones.

    Attributes:
        count: states in the record.

    Raises:
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, layout: Sequence[Mapping[str, Any]], step: int = 0) -> None:
        self.folder, self._layout = folder, layout
        self.count = self._next = 0
        problems = []
        for path in _state_files(folder):
            try:
                keep = _read_file(path, layout).numbers["step"] <= step
            except ValueError as error:
                problems.append(error)
                keep = False
            if keep:
                self.count, self._next = self.count + 1, int(path.stem) + 1
            else:
                path.unlink()
        if problems:
            _log.warning("%s: %d damaged states are removed (%s)", folder, len(problems), problems[0])
        self._write_layout()

    def append(self, state: State) -> None:
        """Add a state. If the record was deleted, a new one is started.

        Raises:
            OSError: it cannot be written.
        """
        if not (self.folder / _LAYOUT).exists():
            _log.warning("%s was deleted; a new record is started without the states before", self.folder)
            self.count = self._next = 0
            self._write_layout()
        arrays: dict[str, Any] = _arrays_of(state)
        path = self.folder / f"{self._next:06}.npz"
        write_atomically(path, lambda file: np.savez_compressed(file, **arrays))
        self.count, self._next = self.count + 1, self._next + 1

    def _write_layout(self) -> None:
        text = json.dumps(self._layout)
        write_atomically(self.folder / _LAYOUT, lambda file: file.write(text.encode()))


def is_record(path: Path) -> bool:
    """Whether the folder is a record."""
    return (path / _LAYOUT).is_file()


def read_record(path: Path) -> Record:
    """All states of a record; damaged ones are skipped with one warning.

    Args:
        path: the folder, also while a run writes to it, or the single file of a record that an earlier
            version wrote.

    Raises:
        UserError: there is no record, or its layout is damaged.
    """
    try:
        if path.is_file():
            return _read_single_file(path)
        layout = _checked_layout(read_json(path / _LAYOUT))
    except FileNotFoundError as error:
        raise UserError(f"{path}: is not a record of a wiring; train with --record_wiring") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is not a readable record of a wiring ({error})") from error
    states, problems = [], []
    for file in _state_files(path):
        try:
            states.append(_read_file(file, layout))
        except ValueError as error:
            problems.append(error)
    if problems:
        _log.warning("%s: %d damaged states are skipped (%s)", path, len(problems), problems[0])
    return Record(layout, states)


def _state_files(folder: Path) -> list[Path]:
    files = [path for path in folder.glob("*.npz") if path.stem.isascii() and path.stem.isdigit()]
    return sorted(files, key=lambda path: int(path.stem))


def _read_file(path: Path, layout: Sequence[Mapping[str, Any]]) -> State:
    """The state of one file.

    Raises:
        ValueError: the file is damaged, or does not fit the layout.
    """
    try:
        if not path.is_file():
            raise ValueError("no regular file")
        with _opened(path) as archive:
            return _state(archive, layout)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name}: {error}") from error


def _read_single_file(path: Path) -> Record:
    """The record of an earlier version: one zip file, `<number>/…` in place of `<number>.npz`.

    Raises:
        OSError, ValueError: it is damaged.
    """
    with _opened(path) as archive:
        layout = _checked_layout(_json(archive, "layout"))
        names = sorted(name for name in archive.namelist() if name.endswith("/state.npy"))
        prefixes = [name.removesuffix("state.npy") for name in names]
        return Record(layout, [_state(archive, layout, prefix, "gaps") for prefix in prefixes])


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except OSError:
        raise
    except Exception as error:  # zipfile does not document what damaged files raise
        raise ValueError(str(error)) from error


def _checked_layout(layout: Any) -> list[dict[str, Any]]:
    if not isinstance(layout, list) or not all(map(_is_layer, layout)):
        raise ValueError("its layout does not list the wired layers")
    return layout


def _is_layer(layer: Any) -> bool:
    if not isinstance(layer, dict) or not isinstance(layer.get("name"), str):
        return False
    sizes = (layer.get("targets"), layer.get("sources"))
    return all(type(size) is int and 0 <= size <= _MAX_NODES for size in sizes)


def _state(
    archive: zipfile.ZipFile,
    layout: Sequence[Mapping[str, Any]],
    prefix: str = "",
    deltas: str = "index_deltas",
) -> State:
    """The state in an archive, whose members have names with this prefix.

    Raises:
        ValueError: it is incomplete, or does not fit the layout.
    """
    numbers = _json(archive, f"{prefix}state")
    if not isinstance(numbers, dict) or not all(map(_is_count, (numbers.get("step"), numbers.get("epoch")))):
        raise ValueError("no step and epoch")
    if not all(value is None or isinstance(value, (int, float)) for value in numbers.values()):
        raise ValueError("metrics that are not numbers")
    layers = {}
    for layer in layout:
        name = layer["name"]
        arrays = [_array(archive, f"{prefix}{name}/{key}") for key in (deltas, "weights", "live")]
        try:
            layers[name] = _layer_state(layer, *arrays)
        except ValueError as error:
            raise ValueError(f"layer {name}: {error}") from error
    return State(numbers, layers)


def _layer_state(layer: Mapping[str, Any], deltas: Array, weights: Array, live: Array) -> LayerState:
    types = (deltas.dtype.kind in "ui", weights.dtype.kind == "f", live.dtype == np.uint8)
    shapes = (deltas.ndim == 1, weights.shape == deltas.shape, live.shape == (-(-layer["sources"] // 8),))
    if not all(types + shapes):
        raise ValueError("arrays of unexpected types or shapes")
    indices = np.cumsum(deltas, dtype=np.int64) - 1
    size = layer["targets"] * layer["sources"]
    if (deltas < 1).any() or (indices < 0).any() or (indices >= size).any():
        raise ValueError("edge indices outside of the matrix")
    live_flags = np.unpackbits(live, count=layer["sources"]).astype(bool)
    return LayerState(indices, weights.astype(np.float32), live_flags)


def _is_count(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < _MAX_STEP


def _arrays_of(state: State) -> dict[str, Array]:
    """A state as its file holds it."""
    arrays: dict[str, Array] = {"state": np.array(json.dumps(dict(state.numbers)))}
    for name, layer in state.layers.items():
        deltas = np.diff(layer.edge_indices, prepend=-1)
        dtype = np.uint16 if deltas.size == 0 or deltas.max() < 2**16 else np.uint32
        arrays[f"{name}/index_deltas"] = deltas.astype(dtype)
        arrays[f"{name}/weights"] = layer.weights.astype(np.float16)
        arrays[f"{name}/live"] = np.packbits(layer.live)
    return arrays


def _json(archive: zipfile.ZipFile, name: str) -> Any:
    return parse_json(str(_array(archive, name)))


def _array(archive: zipfile.ZipFile, name: str) -> Array:
    """An array of an archive. Nothing in the archive is executed, and its size is limited.

    `numpy.load` would unpack any size, and methods other than deflate have no bound while they unpack.

    Raises:
        ValueError: it is absent, damaged or too large.
    """
    try:
        member = archive.getinfo(f"{name}.npy")
        if member.file_size > _MAX_BYTES:
            raise ValueError(f"larger than {_MAX_BYTES:,} bytes")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("packed by another method than deflate")
        array: Array = np.lib.format.read_array(io.BytesIO(archive.read(member)), allow_pickle=False)
    except Exception as error:  # neither zipfile nor NumPy documents what damaged files raise
        reason = str(error).partition("\n")[0][:100]
        raise ValueError(f"array {name} is unreadable: {reason}") from error
    return array
