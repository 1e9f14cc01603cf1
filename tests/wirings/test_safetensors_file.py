"""`.safetensors` files: read as the package reads them, and refused where they do not follow the format."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genutil.checkpoint import read_checkpoint
from genutil.exceptions import CheckpointError
from tests.helpers.examples import examples
from wirings.safetensors_file import read_safetensors

SafetensorError = pytest.importorskip("safetensors").SafetensorError
load, save = (getattr(pytest.importorskip("safetensors.torch"), name) for name in ("load", "save"))
KINDS = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
    torch.int8, torch.uint8, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2,
]  # fmt: skip
ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def raw(header, data=bytes(8)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_every_dtype_and_shape(tmp_path):
    tensors = {f"{kind}": (torch.rand(3, 5) * 9).to(kind) for kind in KINDS}
    tensors |= {
        "scalar": torch.tensor(3.5),
        "empty": torch.ones(2, 0),
        "odd": torch.ones(3, dtype=torch.bool),
    }
    (tmp_path / "x.safetensors").write_bytes(save(tensors, {"a": "b"}))
    found, metadata = read_safetensors(tmp_path / "x.safetensors")
    assert metadata == {"a": "b"}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert torch.equal(found[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "header is longer"),
        (b"\xff" * 8, "header is longer"),
        (b"\x05" + bytes(7) + b"{}", "header is longer"),
        (raw(b"[" * 100_000), "nested too deeply"),
        (raw(b"\xff\xfe"), "not text in UTF-8"),
        (raw(b"{"), "Expecting property name"),
        (raw([1]), "not a mapping"),
        (raw({"a": 1}), "a has no dtype"),
        (raw({"a": {**ENTRY, "more": 1}}), "a has no dtype"),
        (raw(b'{"a": 1, "a": 2}'), "a name occurs twice"),
        (raw({"a\n": ENTRY}), r"'a\\n'… in its header is not the name of a weight"),
        (raw({"\ud800": ENTRY}), "is not the name of a weight"),
        (raw({"a" * 1001: ENTRY}), "is not the name of a weight"),
        (raw({"a": {**ENTRY, "dtype": "F33"}}), "a has dtype F33, which is not supported"),
        (raw({"a": {**ENTRY, "dtype": ["F32"]}}), "not supported"),
        (raw({"a": {**ENTRY, "shape": [-2]}}), "not sizes"),
        (raw({"a": {**ENTRY, "shape": [2.0]}}), "not sizes"),
        (raw({"a": {**ENTRY, "shape": [True, 2]}}), "not sizes"),
        (raw({"a": {**ENTRY, "shape": [2**63, 0]}}), "not sizes"),
        (raw({"a": {**ENTRY, "shape": [1] * 65}}), "not sizes"),
        (raw({"a": {**ENTRY, "data_offsets": [0, 8, 9]}}), "not sizes"),
        (raw({"a": {**ENTRY, "data_offsets": [8, 0]}}), "do not fit its shape"),
        (raw({"a": {**ENTRY, "shape": [3]}}), "do not fit its shape"),
        (
            raw({"a": {**ENTRY, "data_offsets": [4, 12]}}, bytes(12)),
            "a gap or an overlap before the data of a",
        ),
        (raw({"a": ENTRY, "b": ENTRY}), "a gap or an overlap before the data of b"),
        (raw({"a": ENTRY}, bytes(7)), "holds 7 bytes of data, its header describes 8"),
        (raw({"a": ENTRY}, bytes(9)), "holds 9 bytes of data, its header describes 8"),
        (raw({"a": ENTRY, "__metadata__": {"x": 1}}), "not a mapping of text"),
        (raw({"a": ENTRY, "__metadata__": []}), "not a mapping of text"),
    ],
)
def test_what_does_not_follow_the_format_is_refused(tmp_path, content, reason):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=reason) as refused:
        read_checkpoint(path)
    assert str(refused.value).startswith(f"{path}: is damaged or no .safetensors file (")


def test_a_file_without_tensors_is_no_checkpoint(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(raw({}, b""))
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        read_checkpoint(tmp_path / "x.safetensors")


def test_truth_values_are_valid(tmp_path):
    entry = {"dtype": "BOOL", "shape": [2], "data_offsets": [0, 2]}
    (tmp_path / "x.safetensors").write_bytes(raw({"a": entry}, b"\x00\x07"))
    (tensor,) = read_safetensors(tmp_path / "x.safetensors")[0].values()
    assert tensor.view(torch.uint8).tolist() == [0, 1]


def test_exported_networks_are_refused_by_name(tmp_path):
    metadata = {"format": "wirings 1", "shape": "[3, 32, 32]", "strides": "[1]"}
    (tmp_path / "x.safetensors").write_bytes(save({"stem.weight": torch.ones(2)}, metadata))
    with pytest.raises(CheckpointError, match=r"x\.safetensors: is an exported network, .*; use the"):
        read_checkpoint(tmp_path / "x.safetensors")


@examples(300)
@given(data=st.data())
def test_changed_bytes_are_read_as_the_package_reads_them_or_refused(tmp_path_factory, data):
    """Never another error; whatever the package refuses is refused."""
    content = bytearray(save({"a": torch.arange(6.0).view(2, 3), "b": torch.arange(3)}, {"x": "y"}))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))]
    path = tmp_path_factory.mktemp("changed") / "x.safetensors"
    path.write_bytes(content)
    try:
        found, _ = read_safetensors(path)
    except ValueError:
        return
    try:
        expected = load(bytes(content))
    except SafetensorError:
        raise AssertionError("the package refuses this file") from None
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))
