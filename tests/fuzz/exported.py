"""Exported wirings: odd networks that are written, and changed files that are read."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from genutil.checkpoint import read_checkpoint
from tests.fuzz.mutations import byte_edits, document_edits, edited, edited_document
from tests.helpers.random_wirings import small_mobilenet
from tests.models import edge_reader
from wirings.exporting import export

_WIRINGS = ("some", "few", "one", "none", "all", "columns")
_REFUSED = (ValueError, LookupError, TypeError, AssertionError, AttributeError, struct.error)
"""What NumPy and the reader's few lines raise for a file that is not an export."""
_SHAPE = (3, 32, 32)
_NUMBERS = {"nan": float("nan"), "inf": float("inf"), "zero": 0.0, "huge": 3e38, "tiny": 1e-42}


class ExportedFiles:
    """`--export`, and the reader that docs/export.md describes."""

    in_child = False

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        path = folder / "valid.safetensors"
        export(small_mobilenet(0, image_size=32), path, _SHAPE)
        self.valid = path.read_bytes()
        (size,) = struct.unpack("<Q", self.valid[:8])
        self.header, self.data = json.loads(self.valid[8 : 8 + size]), self.valid[8 + size :]
        self.images = np.random.default_rng(0).standard_normal((1, *_SHAPE)).astype(np.float32)

    def cases(self) -> st.SearchStrategy[Any]:
        weights = st.lists(st.tuples(st.integers(0, 200), st.sampled_from(sorted(_NUMBERS))), max_size=3)
        wirings = st.lists(st.sampled_from(_WIRINGS), min_size=4, max_size=4)
        ending = st.sampled_from([".safetensors"] * 40 + [".onnx"])
        return st.one_of(
            st.tuples(st.just("write"), ending, wirings, st.integers(0, 10_000), st.booleans(), weights),
            st.tuples(st.just("bytes"), byte_edits()),
            st.tuples(st.just("header"), document_edits()),
        )

    def run(self, case: Any, folder: Path) -> None:
        kind, *given = case
        path = folder / "out.safetensors"
        if kind == "write":
            return self._write(folder, *given)
        if kind == "bytes":
            path.write_bytes(edited(self.valid, *given))
        else:
            text = json.dumps(edited_document(self.header, *given)).encode()
            path.write_bytes(struct.pack("<Q", len(text)) + text + self.data)
        with contextlib.suppress(*_REFUSED):
            edge_reader.logits(path, self.images)
        read_checkpoint(path)
        return None

    def _write(
        self, folder: Path, ending: str, wirings: list[str], seed: int, small: bool, weights: Any
    ) -> None:
        model = small_mobilenet(seed, wirings, image_size=32, small=small)
        parameters = list(model.parameters())
        for place, number in weights:
            parameters[place % len(parameters)].data.flatten()[:1].fill_(_NUMBERS[number])
        path = folder / f"out{ending}"
        try:
            export(model, path, _SHAPE)
        except ValueError as error:  # the command gives it to the user
            assert str(error) and not path.exists()
            return
        if ending != ".safetensors":
            return
        with torch.no_grad():
            expected = model(torch.from_numpy(self.images)).numpy()
        found = edge_reader.logits(path, self.images)
        if np.isfinite(expected).all() and np.abs(expected).max() < 1e30:
            limit = 1e-4 * max(np.abs(expected).max(), 1e-6)
            assert np.abs(found - expected).max() <= limit, "the exported file gives other logits"
