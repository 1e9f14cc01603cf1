"""Checksums: of contents, and of the checkpoints that carry them."""

import pytest
import torch

from genutil.checkpoint import read_checkpoint, save_checkpoint
from genutil.exceptions import CheckpointError
from wirings.checksum import digest

CONTENT = {
    "model": {
        "w": torch.arange(6.0).view(2, 3),
        "mask": torch.tensor([True, False]),
        "count": torch.tensor(7),
    },
    "optimizer": {
        "state": {0: {"momentum_buffer": torch.ones(2, dtype=torch.bfloat16)}},
        "groups": [{"lr": 0.1}],
    },
    "config": {"name": "tiny", "resume": None, "flag": True},
    "rng": (3, (1, 2), None),
}


def changed(place, value):
    copy = {key: dict(part) if isinstance(part, dict) else part for key, part in CONTENT.items()}
    copy[place[0]][place[1]] = value
    return copy


def test_a_digest_is_that_of_its_definition():
    """Pinned: files of today must be readable tomorrow."""
    assert digest(CONTENT) == "0eee63692ff88e175eb90af58ae8c919ca0629f302dfd088de4ae454d279422d"


def test_order_and_kind_of_containers_do_not_count():
    assert (
        digest(dict(reversed(CONTENT.items())))
        == digest({**CONTENT, "rng": [3, [1, 2], None]})
        == digest(CONTENT)
    )
    other_memory = torch.arange(6.0).view(3, 2).t().contiguous().t().contiguous()
    assert digest(other_memory.t().contiguous().t()) == digest(torch.arange(6.0).view(3, 2))


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(3, device="meta"),
        torch.eye(3).to_sparse(),
        torch.zeros(1).expand(2**55),
    ],
)
def test_tensors_without_readable_numbers_are_refused(tmp_path, value):
    """In a file of ours they are damage."""
    with pytest.raises(TypeError, match="cannot be summed up"):
        digest({"model": {"w": value}})
    torch.save({"model": {"w": value}, "format": 2, "checksum": "0"}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match=r"last.pt: is damaged"):
        read_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("model", "w"), torch.arange(6.0).view(3, 2)),
        (("model", "w"), torch.arange(6).view(2, 3)),
        (("model", "w"), torch.arange(6.0).view(2, 3) + 1e-6),
        (("model", "mask"), torch.tensor([True, True])),
        (("model", "new"), torch.zeros(0)),
        (("config", "flag"), 1),
        (("config", "resume"), "None"),
        (("config", "name"), "tin"),
    ],
)
def test_any_change_counts(place, value):
    assert digest(changed(place, value)) != digest(CONTENT)


def test_where_one_value_ends_counts():
    assert digest(["ab", "c"]) != digest(["a", "bc"])
    assert digest([[1], 2]) != digest([1, [2]])


def test_other_objects_are_refused():
    with pytest.raises(TypeError, match="set is neither a tensor nor a plain value"):
        digest({"model": {1, 2}})


def test_no_damaged_byte_goes_unnoticed(tmp_path):
    """Flipped anywhere in the file, it is an error or, in padding and the like, without any effect."""
    path = tmp_path / "last.pt"
    save_checkpoint(path, CONTENT)
    whole, expected = path.read_bytes(), digest(read_checkpoint(path))
    unnoticed = 0
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            assert digest(read_checkpoint(path)) == expected, place
            unnoticed += 1
        except CheckpointError:
            pass
    assert unnoticed < len(whole) / 7


def test_a_changed_weight_is_told(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, CONTENT)
    content = torch.load(path, weights_only=True)
    content["model"]["w"][0, 0] += 1
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="is damaged: its content does not match its checksum"):
        read_checkpoint(path)
    del content["checksum"]
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="does not match its checksum"):
        read_checkpoint(path)
    content["format"] = 1
    torch.save(content, path)
    assert "checksum" not in read_checkpoint(path)  # files of others have none
