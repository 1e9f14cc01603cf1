"""Recorded wirings that can be drawn: found, read and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    StrictBool,
    StrictInt,
    ValidationError,
    model_validator,
)

from fig.finished_runs import start_time
from genutil.exceptions import UserError
from genutil.experiment_name import folder_name
from genutil.runs.run_folder import wiring_record_of
from genutil.runs.wiring_record import Record, is_record, read_record


def find_record(run: Path) -> Path:
    """The recorded wiring of a run.

    Args:
        run: its folder, the record itself, or in place of the folder's name the experiment's: of its runs
            that have a record, the last one.

    Raises:
        UserError: there is none.
    """
    if is_record(run) or run.is_file():
        return run
    record = wiring_record_of(run)
    if not run.exists() and run.parent.is_dir():
        name = folder_name(run.name) if run.name else ""
        starts = {path: start_time(path, name) for path in run.parent.iterdir()}
        records = [(start, wiring_record_of(path)) for path, start in starts.items() if start]
        record = max(((start, path) for start, path in records if path), default=(None, None))[1]
    if record is None:
        raise UserError(f"{run}: has no recorded wiring; train with --record_wiring")
    return record


def read_drawable(path: Path) -> Record:
    """A record that can be drawn.

    Raises:
        UserError: it has no wired layer or no state, or it cannot be read.
    """
    record = read_record(path)
    if not record.layout:
        raise UserError(
            f"{path}: the network has no wired layer; train one whose edges are chosen by a graph"
        )
    if not record.states:
        raise UserError(f"{path}: holds no state yet; wait until the training has begun")
    for layer in record.layout:
        try:
            _Layer.model_validate(layer)
        except ValidationError as error:
            first = error.errors()[0]
            where = " ".join(map(str, first["loc"]))
            message = f"its layer {layer['name']} cannot be drawn ({where}: {first['msg']})"
            raise UserError(f"{path}: is damaged: {message}") from error
    return record


def _ordered(bounds: tuple[int, int]) -> tuple[int, int]:
    if not 0 <= bounds[0] <= bounds[1]:
        raise ValueError("must be [first, end]")
    return bounds


_Range = Annotated[tuple[StrictInt, StrictInt], AfterValidator(_ordered)]


class _Column(BaseModel):
    sources: _Range
    targets: _Range | None

    @model_validator(mode="after")
    def _same_length(self) -> _Column:
        if self.targets and self.targets[1] - self.targets[0] != self.sources[1] - self.sources[0]:
            raise ValueError("sources and targets must be the same nodes")
        return self


class _Layer(BaseModel):
    """What drawing needs of a layer's layout; see models.wiring_state."""

    targets: int
    sources: int
    acyclic: StrictBool
    columns: list[_Column] = Field(min_length=1)
    outputs: _Range | None

    @model_validator(mode="after")
    def _inside(self) -> _Layer:
        rows = [column.targets for column in self.columns if column.targets]
        rows += [self.outputs] if self.outputs else []
        too_many_rows = any(end > self.targets for _, end in rows)
        if too_many_rows or any(column.sources[1] > self.sources for column in self.columns):
            raise ValueError("columns and outputs must lie inside of the matrix")
        return self
