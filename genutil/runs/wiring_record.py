"""The record of a wiring while it is learned: `wiring.npz`, to which states are appended.

NumPy reads it (`numpy.load`), and `read_record` gives whole states. Its members:

- `layout`: JSON text; what the wired layers consist of, as the network tells it.
- `<number>/state`: JSON text; step, epoch, and whatever was measured at that moment.
- `<number>/<layer>/gaps`, `…/weights`: of the edges in use, in the order of their places in the flattened
  (targets, sources) matrix: the difference to the place before (the first: to −1), and the weight in 16 bits.
- `<number>/<layer>/live`: packed bits, one for each source; see `LayerState`.

A state is appended within the file, so that a long run does not copy it again and again
(`genutil.runs.growing_zip`). While a run goes on, or after it was killed, NumPy may not see the last tenth
or so of the states; `read_record` reads all. What a cut-off may leave is a state that is not whole, at the
end; a reader leaves it out, and the next writer removes it.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genutil.errors import UserError
from genutil.runs.growing_zip import GrowingZip, read_members

Array = NDArray[Any]

_PARTS = ("gaps", "weights", "live")
_MOST_NODES, _MOST_STEPS = 2**20, 2**53
"""Sizes beyond which a record is taken for damaged."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LayerState:
    """The edges in use of one wired layer.

    Attributes:
        places: of the edges in the flattened (targets, sources) matrix, rising.
        weights: theirs; 16 bits are kept of each.
        live: boolean, which sources have an edge on a path from image to logits.
    """

    places: NDArray[np.int64]
    weights: Array
    live: NDArray[np.bool_]


@dataclass(frozen=True)
class State:
    """A network's wiring at one moment.

    Attributes:
        numbers: `step`, `epoch`, and what was measured.
        layers: by the names that the layout gives.
    """

    numbers: Mapping[str, float]
    layers: Mapping[str, LayerState]


@dataclass(frozen=True)
class Record:
    """All states of a run.

    Attributes:
        layout: what the wired layers consist of.
        states: in the order of their steps.
    """

    layout: Sequence[Mapping[str, Any]]
    states: Sequence[State]


class WiringFile:
    """Appends states to a record.

    Args:
        path: the file; an earlier one is gone on with.
        layout: of the wired layers, as plain values; `name`, `targets` and `sources` are needed.
        step: of an earlier file, states of later steps are removed, and all from the first one on that cannot
            be read.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, layout: Sequence[Mapping[str, Any]], step: int = 0) -> None:
        self.path, self.layout = path, layout
        members = dict(read_members(path)) if path.exists() else {}
        self.count, kept = 0, self._layout()
        while f"{self.count:06}/state.npy" in members:
            number = f"{self.count:06}"
            try:
                if _state(members, number, layout).numbers["step"] > step:
                    break
            except (KeyError, ValueError) as error:
                _log.warning("%s: its states from number %s on are removed (%s)", path, number, error)
                break
            kept |= {name: data for name, data in members.items() if name.startswith(f"{number}/")}
            self.count += 1
        self._zip = GrowingZip(path, kept)

    def append(self, state: State) -> None:
        """Add a state. If the file is gone, it is begun anew.

        Raises:
            OSError: it cannot be written.
        """
        try:
            self._zip.add(_members_of(state, self.count))
        except FileNotFoundError:
            _log.warning("%s is gone and is begun anew; the states in it are lost", self.path)
            self.count = 0
            self._zip = GrowingZip(self.path, self._layout() | _members_of(state, 0))
        self.count += 1

    def close(self) -> None:
        """At the end of the run; for NumPy, which then sees all states.

        Raises:
            OSError: it cannot be written.
        """
        with suppress(FileNotFoundError):
            self._zip.close()

    def _layout(self) -> dict[str, bytes]:
        return {"layout.npy": _bytes(np.array(json.dumps(self.layout)))}


def read_record(path: Path) -> Record:
    """All whole states of a record, also of one that is still being written or was cut off.

    Raises:
        UserError: there is no such file, or it is no record of a wiring.
    """
    try:
        members = dict(read_members(path))
        layout = _json(members["layout.npy"])
        if not isinstance(layout, list) or not all(map(_is_layer, layout)):
            raise ValueError("its layout is none")
        numbers = sorted(name.partition("/")[0] for name in members if name.endswith("/state.npy"))
        states = [_state(members, number, layout) for number in numbers]
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file; train with --record_wiring to have one") from error
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path}: is no record of a wiring ({error})") from error
    return Record(layout, states)


def _is_layer(layer: Any) -> bool:
    if not isinstance(layer, dict) or not isinstance(layer.get("name"), str):
        return False
    sizes = (layer.get("targets"), layer.get("sources"))
    return all(type(size) is int and 0 <= size <= _MOST_NODES for size in sizes)


def _state(members: Mapping[str, bytes], number: str, layout: Sequence[Mapping[str, Any]]) -> State:
    """One state.

    Raises:
        KeyError, ValueError: it is not whole, or does not fit the layout.
    """
    numbers = _json(members[f"{number}/state.npy"])
    if not isinstance(numbers, dict) or not all(map(_is_number, (numbers.get("step"), numbers.get("epoch")))):
        raise ValueError(f"state {number} has no step and epoch")
    if not all(value is None or isinstance(value, (int, float)) for value in numbers.values()):
        raise ValueError(f"state {number} has values that are no numbers")
    layers = {}
    for layer in layout:
        parts = (_array(members[f"{number}/{layer['name']}/{part}.npy"]) for part in _PARTS)
        try:
            layers[layer["name"]] = _layer_state(layer, *parts)
        except ValueError as error:
            raise ValueError(f"state {number}, layer {layer['name']}: {error}") from error
    return State(numbers, layers)


def _layer_state(layer: Mapping[str, Any], gaps: Array, weights: Array, live: Array) -> LayerState:
    kinds = (gaps.dtype.kind in "ui", weights.dtype.kind == "f", live.dtype == np.uint8)
    shapes = (gaps.ndim == 1, weights.shape == gaps.shape, live.shape == (-(-layer["sources"] // 8),))
    if not all(kinds + shapes):
        raise ValueError("its arrays have other types or shapes")
    places = np.cumsum(gaps, dtype=np.int64) - 1
    if (gaps < 1).any() or (places < 0).any() or (places >= layer["targets"] * layer["sources"]).any():
        raise ValueError("its edges lie outside of the matrix")
    alive = np.unpackbits(live, count=layer["sources"]).astype(bool)
    return LayerState(places, weights.astype(np.float32), alive)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < _MOST_STEPS


def _json(content: bytes) -> Any:
    try:
        return json.loads(str(_array(content)))
    except RecursionError as error:
        raise ValueError("a text is nested too deep") from error


def _members_of(state: State, place: int) -> dict[str, bytes]:
    """A state as the record holds it. What tells that it is there comes last."""
    number = f"{place:06}"
    arrays: dict[str, Array] = {}
    for name, layer in state.layers.items():
        gaps = np.diff(layer.places, prepend=-1)
        small = np.uint16 if gaps.size == 0 or gaps.max() < 2**16 else np.uint32
        arrays[f"{number}/{name}/gaps.npy"] = gaps.astype(small)
        arrays[f"{number}/{name}/weights.npy"] = layer.weights.astype(np.float16)
        arrays[f"{number}/{name}/live.npy"] = np.packbits(layer.live)
    arrays[f"{number}/state.npy"] = np.array(json.dumps(dict(state.numbers)))
    return {name: _bytes(array) for name, array in arrays.items()}


def _bytes(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _array(content: bytes) -> Array:
    try:
        array: Array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # numpy promises no exception types for what is no array
        raise ValueError(f"a member of it is no array: {str(error).partition(chr(10))[0][:100]}") from error
    return array
