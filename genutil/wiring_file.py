"""The record of a wiring while it is learned: `wiring.npz`, to which states are appended.

NumPy reads it (`numpy.load`), and `read_record` gives whole states. Its members:

- `layout`: JSON text; what the wired layers consist of, as the network tells it.
- `<number>/state`: JSON text; step, epoch, and whatever was measured at that moment.
- `<number>/<layer>/gaps`, `…/weights`: of the edges in use, in the order of their places in the flattened
  (targets, sources) matrix: the difference to the place before (the first: to −1), and the weight in 16 bits.
- `<number>/<layer>/live`: packed bits, one for each source; see `LayerState`.

A state is appended within the file, so that a long run does not copy it again and again
(`genutil.growing_zip`). While a run goes on, or after it was killed, NumPy may not see the last tenth or so
of the states; `read_record` reads all. What a cut-off may leave is a state that is not whole, at the end; a
reader leaves it out, and the next writer removes it.
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
from genutil.growing_zip import GrowingZip, read_members

Array = NDArray[Any]

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
        step: what an earlier file tells of later steps is removed.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, layout: Sequence[Mapping[str, Any]], step: int = 0) -> None:
        self.path, self.layout = path, layout
        members = dict(read_members(path)) if path.exists() else {}
        kept = {name: data for name, data in members.items() if "/" not in name}
        numbers = sorted({name.partition("/")[0] for name in members if name.endswith("/state.npy")})
        self.count = 0
        for number in numbers:
            if json.loads(str(_array(members[f"{number}/state.npy"])))["step"] > step:
                break
            kept |= {name: data for name, data in members.items() if name.startswith(f"{number}/")}
            self.count += 1
        self._zip = GrowingZip(path, kept or self._layout())

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
        layout = json.loads(str(_array(members["layout.npy"])))
        if not isinstance(layout, list):
            raise ValueError("its layout is none")
        numbers = sorted(name.partition("/")[0] for name in members if name.endswith("/state.npy"))
        states = [_state(members, number, layout) for number in numbers]
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file; train with --record_wiring to have one") from error
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path}: is no record of a wiring ({error})") from error
    return Record(layout, states)


def _state(members: Mapping[str, bytes], number: str, layout: Sequence[Mapping[str, Any]]) -> State:
    layers = {}
    for layer in layout:
        gaps, weights, live = (
            _array(members[f"{number}/{layer['name']}/{part}.npy"]) for part in ("gaps", "weights", "live")
        )
        places = np.cumsum(gaps, dtype=np.int64) - 1
        alive = np.unpackbits(live, count=layer["sources"]).astype(bool)
        layers[layer["name"]] = LayerState(places, weights.astype(np.float32), alive)
    return State(json.loads(str(_array(members[f"{number}/state.npy"]))), layers)


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
    array: Array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    return array
