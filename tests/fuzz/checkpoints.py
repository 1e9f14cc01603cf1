"""Checkpoint files: changed bytes, hostile pickles, archives that unpack to gigabytes, odd contents."""

from __future__ import annotations

import functools
import io
import pickle
import pickletools
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st

from genutil.checkpoint import apply_weights, read_checkpoint
from genutil.config import load_config
from genutil.config.components import ComponentBuilder
from tests.fuzz.guard import EXECUTED
from tests.fuzz.mutations import byte_edits, edited, literal, odd_values
from tests.fuzz.trained import make_trainer, train_tiny
from tests.helpers.published_files import published_content, write_published
from trainers.checkpointing import resumable_state
from wirings.checksum import digest

_CALL = f'__import__("sys").audit("{EXECUTED}")'
_GLOBALS = (
    ("os", "system"), ("posix", "system"), ("nt", "system"), ("builtins", "eval"), ("builtins", "exec"),
    ("__builtin__", "eval"), ("builtins", "getattr"), ("builtins", "__import__"), ("subprocess", "Popen"),
    ("subprocess", "check_output"), ("runpy", "run_path"), ("webbrowser", "open"), ("sys", "exit"),
    ("torch", "load"), ("torch.serialization", "load"), ("torch.hub", "load"), ("torch._utils", "_rebuild"),
    ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_sparse_tensor"), ("torch._tensor", "_rebuild_from_type_v2"),
    ("collections", "OrderedDict"), ("collections", "Counter"), ("collections", "defaultdict"),
    ("numpy", "dtype"), ("numpy", "ndarray"), ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"), ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "_frombuffer"), ("train", "ScalarMeter"), ("torch", "FloatStorage"),
    ("torch", "Size"), ("torch", "device"), ("torch", "float32"),
    ("genutil.checkpoint.serialization", "save_checkpoint"),
    ("experiment", "run"), ("pickle", "loads"), ("torch.nn.modules.linear", "Linear"), ("é", "漢"),
)  # fmt: skip
_ENDINGS = (".pt", ".pt", ".pt", ".pth", ".ckpt", ".pth.tar", ".safetensors")


def _string(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _value(value: Any) -> bytes:
    """The opcodes of a plain value."""
    whole = pickle.dumps(literal(value), 2)
    return whole[2:-1]  # without PROTO and STOP


def _program(steps: Any) -> bytes:
    """A pickle of these steps, whether it makes sense or not."""
    body = b"\x80\x02"
    for step, *given in steps:
        if step == "global":
            body += b"c" + given[0].encode() + b"\n" + given[1].encode() + b"\n"
        elif step == "value":
            body += _value(given[0])
        elif step == "call":
            body += b"(" + _string(given[0]) + b"tR"
        elif step == "opcode":
            body += given[0]
        elif step == "persistent":
            body += b"(" + _string("storage") + b"ctorch\nFloatStorage\n" + _string(given[0]) + _string("cpu")
            body += _value(given[1]) + b"tQ"
        elif step == "model":
            body += b"}" + _string("model") + b"}" + _string("w")
    return body + b"."


def _steps() -> st.SearchStrategy[Any]:
    opcodes = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
    step = st.one_of(
        st.tuples(st.just("global"), st.sampled_from([m for m, _ in _GLOBALS]), st.sampled_from(["system"])),
        st.sampled_from(_GLOBALS).map(lambda pair: ("global", *pair)),
        st.sampled_from(_GLOBALS).map(lambda pair: ("global", *pair)),
        st.tuples(st.just("value"), odd_values()),
        st.tuples(st.just("call"), st.sampled_from([_CALL, "true", "os", "i8", "f4", "O8", "cpu"])),
        st.tuples(st.just("call"), st.sampled_from([_CALL, "true", "os", "i8", "f4", "O8", "cpu"])),
        st.tuples(st.just("opcode"), st.sampled_from(opcodes)),
        st.tuples(st.just("opcode"), st.builds(bytes.__add__, st.sampled_from(opcodes),
        st.binary(max_size=6))),
        st.tuples(st.just("persistent"), st.sampled_from(["0", "1", "../x", ""]), odd_values()),
        st.just(("model",)),
    )  # fmt: skip
    return st.lists(step, min_size=1, max_size=8)


_TENSORS = (
    "float", "empty", "scalar", "double", "half", "bfloat16", "bool", "int64", "uint8", "complex",
    "quantized",
    "sparse", "meta", "nan", "expanded", "large view", "parameter", "float8",
)  # fmt: skip


def _tensor(kind: str, like: torch.Tensor) -> torch.Tensor:
    made = {
        "float": lambda: like.float(), "empty": lambda: torch.zeros(0), "scalar": lambda: torch.tensor(1.0),
        "double": lambda: like.double(), "half": lambda: like.half(), "bfloat16": lambda: like.bfloat16(),
        "bool": lambda: like.bool(), "int64": lambda: like.long(), "uint8": lambda: like.to(torch.uint8),
        "complex": lambda: like.to(torch.complex64), "sparse": lambda: like.float().to_sparse(),
        "quantized": lambda: torch.quantize_per_tensor(like.float(), 0.1, 0, torch.qint8),
        "meta": lambda: like.to("meta"), "nan": lambda: torch.full(like.shape, float("nan")),
        "expanded": lambda: torch.zeros(1).expand(like.shape),
        "large view": lambda: torch.zeros(1).expand(2**40),
        "parameter": lambda: torch.nn.Parameter(like.float()),
        "float8": lambda: like.float().to(torch.float8_e4m3fn),
    }  # fmt: skip
    try:
        return made[kind]()
    except RuntimeError:  # of this tensor there is no such kind
        return like


_TOP = (
    "model", "optimizer", "last_epoch", "best_val", "iter", "scheduler", "rng", "config", "format",
    "epoch_progress", "scaler", "optimizer_names", "state_dict", "epoch", "origin", "checksum", "meters",
)  # fmt: skip


def _content_edits() -> st.SearchStrategy[Any]:
    edit = st.one_of(
        st.tuples(st.just("set"), st.sampled_from(_TOP), odd_values()),
        st.tuples(st.just("set"), st.sampled_from(_TOP), odd_values()),
        st.tuples(st.just("remove"), st.sampled_from(_TOP)),
        st.tuples(st.just("within"), st.sampled_from(_TOP), st.integers(0, 50), st.integers(0, 50),
        odd_values()),
        st.tuples(st.just("tensor"), st.integers(0, 50), st.sampled_from(_TENSORS)),
        st.tuples(st.just("rename"), st.integers(0, 50), st.one_of(st.text(max_size=6), st.integers())),
        st.tuples(st.just("prefix"), st.sampled_from(["module.", "_orig_mod.", "model.", "x", ""])),
        st.tuples(st.just("drop"), st.integers(0, 50)),
        st.tuples(st.just("bare")),
        st.tuples(st.just("momentum"), st.sampled_from(_TENSORS)),
    )  # fmt: skip
    return st.lists(edit, min_size=1, max_size=3)


def _changed(content: dict[str, Any], edits: Any) -> Any:
    content = {key: dict(value) if key == "model" else value for key, value in content.items()}
    for kind, *given in edits:
        model = content.get("model")
        names = list(model) if isinstance(model, dict) and model else []
        if kind == "set":
            content[given[0]] = literal(given[1])
        elif kind == "remove":
            content.pop(given[0], None)
        elif kind == "within" and isinstance(content.get(given[0]), dict) and content[given[0]]:
            content[given[0]] = _within(content[given[0]], *given[1:])
        elif kind == "bare" and names:
            return model
        elif kind == "momentum" and isinstance(content.get("optimizer"), dict):
            states = content["optimizer"].get("state")
            states = dict(states) if isinstance(states, dict) else {}
            for place, state in list(states.items())[:1]:
                state = state if isinstance(state, dict) else {}
                states[place] = {**state, "momentum_buffer": _tensor(given[0], torch.ones(3))}
            content["optimizer"] = {**content["optimizer"], "state": states}
        elif names and kind in ("tensor", "rename", "drop"):
            name = names[given[0] % len(names)]
            value = model.pop(name)
            if kind == "tensor" and isinstance(value, torch.Tensor):
                model[name] = _tensor(given[1], value)
            elif kind == "rename":
                model[given[1]] = value
        elif kind == "prefix" and names:
            content["model"] = {f"{given[0]}{name}": value for name, value in model.items()}
    return content


def _within(mapping: dict[Any, Any], first: int, second: int, value: Any) -> dict[Any, Any]:
    mapping = dict(mapping)
    key = list(mapping)[first % len(mapping)]
    inner = mapping[key]
    if isinstance(inner, dict) and inner and second % 2:
        mapping[key] = _within(inner, second, second // 2, value)
    else:
        mapping[key] = literal(value)
    return mapping


class Checkpoints:
    """`--resume FILE`: reading, loading the weights, putting the training back."""

    in_child = False

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        last = train_tiny(folder) / "checkpoints" / "tiny" / "last.pt"
        self.content = read_checkpoint(last)
        self.config = load_config(folder / "tiny.yml")
        self.parts = ComponentBuilder(self.config)
        model, trainer = make_trainer(self.parts)
        torch.save(self.content, folder / "old.pt", _use_new_zipfile_serialization=False)
        torch.save(self.content["model"], folder / "bare.pt")
        write_published(folder / "published.pt", published_content(model, trainer.optimizer, 3, 12))
        files = [last, *(folder / f"{name}.pt" for name in ("old", "bare", "published"))]
        self.valid = [file.read_bytes() for file in files]
        self.valid.append(_safetensors(self.content["model"]))

    def cases(self) -> st.SearchStrategy[Any]:
        ending = st.sampled_from(_ENDINGS)
        return st.one_of(
            st.tuples(st.just("bytes"), ending, st.integers(0, 4), byte_edits()),
            st.tuples(st.just("bytes"), ending, st.integers(0, 4), byte_edits()),
            st.tuples(st.just("pickle"), ending, _steps(), st.booleans()),
            st.tuples(st.just("content"), st.just(".pt"), _content_edits(), st.booleans()),
            st.tuples(st.just("content"), st.just(".pt"), _content_edits(), st.booleans()),
            st.tuples(st.just("bomb"), ending, st.sampled_from(["pickle", "data", "length",
            "shape", "nested"])),
            st.tuples(st.just("other"), ending, st.binary(max_size=64)),
        )  # fmt: skip

    def run(self, case: Any, folder: Path) -> None:
        kind, ending, *given = case
        path = folder / f"case{ending}"
        path.write_bytes(getattr(self, f"_{kind}")(*given))
        content = read_checkpoint(path)
        model, trainer = make_trainer(self.parts)
        apply_weights(content, model, str(path))
        trainer.load_state_dict(
            resumable_state(
                content, str(path), self.config.model_dump(), model, trainer.optimizer, len(trainer.train),
                self.config.topk,
            )
        )  # fmt: skip

    def _bytes(self, place: int, edits: Any) -> bytes:
        return edited(self.valid[place], edits)

    def _other(self, content: bytes) -> bytes:
        return content

    def _pickle(self, steps: Any, in_archive: bool) -> bytes:
        program = _program(steps)
        return _archive(program) if in_archive else program

    def _content(self, edits: Any, summed: bool) -> bytes:
        content = _changed(self.content, edits)
        buffer = io.BytesIO()
        if not summed or not isinstance(content, dict):
            torch.save(content, buffer)
            return buffer.getvalue()
        try:
            content = {**content, "checksum": digest(content)}
        except Exception:
            content = {**content, "format": 1}
        torch.save(content, buffer)
        return buffer.getvalue()

    @staticmethod
    @functools.cache
    def _bomb(kind: str) -> bytes:
        if kind == "pickle":  # a text that is a thousand times as long as the file
            text = b"\x80\x02" + b"X" + struct.pack("<I", 2**26) + b"x" * 2**26 + b"."
            return _archive(text, compressed=True)
        if kind == "length":
            return b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x."
        if kind == "nested":
            return _archive(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
        if kind == "shape":
            rebuilt = (
                b"ctorch._utils\n_rebuild_tensor_v2\n((" + _string("storage") + b"ctorch\nFloatStorage\n"
            )
            rebuilt += _string("0") + _string("cpu") + _value(2**40) + b"tQ" + _value(0)
            rebuilt += _value((2**40,)) + _value((1,)) + b"\x89ccollections\nOrderedDict\n)RtR"
            return _archive(b"\x80\x02}" + _string("w") + rebuilt + b"s.")
        return _archive(b"\x80\x02}.", {"data/0": b"\0" * 2**26}, compressed=True)


def _safetensors(model: Any) -> bytes:
    from safetensors.torch import save

    return bytes(save({name: value.contiguous() for name, value in model.items()}))


def _archive(program: bytes, more: Any = None, compressed: bool = False) -> bytes:
    """A pickle in a zip file, as torch writes it."""
    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", b"3\n")
        archive.writestr("archive/data/0", b"\0" * 64)
        for name, data in (more or {}).items():
            archive.writestr(f"archive/{name}", data)
    return buffer.getvalue()
