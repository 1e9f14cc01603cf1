"""Weights that other programs saved: read, with one line that says what was done to their names."""

import argparse
import logging

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from genutil.checkpoint import load_weights, read_checkpoint, save_checkpoint
from genutil.exceptions import CheckpointError
from tests.helpers.exported_files import save_safetensors
from tests.helpers.published_files import published_content, write_published
from wirings import wire
from wirings.errors import WiringError
from wirings.weight_names import match_names
from wirings.weights_file import find_weights, read_content


def build(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    nn.init.uniform_(model[1].running_mean)
    model[1].num_batches_tracked += 7
    return model


@pytest.fixture
def weights():
    return dict(build().state_dict())


def prefixed(weights, prefix):
    return {prefix + name: value for name, value in weights.items()}


def loaded_with(tmp_path, caplog, content, name="x.pt"):
    """(lines, network) after loading a file with this content into a network with other weights."""
    if name.endswith(".safetensors"):
        save_safetensors(content, tmp_path / name)
    else:
        torch.save(content, tmp_path / name)
    network = build(1)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        info = load_weights(tmp_path / name, network)
    assert (info.origin, info.epoch, info.step) == ("weights", None, None)
    for key, value in build().state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(value, network.state_dict()[key])
    return [record.getMessage() for record in caplog.records], network


def line(tmp_path, text, name="x.pt"):
    return [f"{tmp_path / name}: {text}"]


@pytest.mark.parametrize(
    "prefix",
    [
        "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.module.", "model.", "net.",
        "model._orig_mod.module.", "backbone.encoder.", "0.",
    ],
)  # fmt: skip
@pytest.mark.parametrize("under", ["model", "state_dict", None])
def test_prefixes_of_all_names_are_removed(tmp_path, caplog, weights, prefix, under):
    content = prefixed(weights, prefix)
    lines, _ = loaded_with(tmp_path, caplog, {under: content} if under else content)
    assert lines == line(tmp_path, f"removed the prefix '{prefix}' from all names")


def test_files_of_lightning(tmp_path, caplog, weights):
    """`epoch` has another meaning there than in the files of the ResNets."""
    content = {
        "state_dict": prefixed(weights, "net."), "epoch": 3, "global_step": 40, "loops": {"a": 1},
        "pytorch-lightning_version": "2.5.0", "optimizer_states": [], "hyper_parameters": {"lr": 0.1},
    }  # fmt: skip
    lines, _ = loaded_with(tmp_path, caplog, content, "x.ckpt")
    assert lines == line(tmp_path, "removed the prefix 'net.' from all names", "x.ckpt")


def test_files_of_timm(tmp_path, caplog, weights):
    """They hold their options as an object, and `epoch` is the last finished one."""
    content = {
        "epoch": 3, "arch": "resnet18", "state_dict": weights, "optimizer": {"state": {}, "param_groups": []},
        "version": 2, "args": argparse.Namespace(lr=0.1, mean=(0.5, 0.5)), "metric": 70.5,
    }  # fmt: skip
    assert loaded_with(tmp_path, caplog, content)[0] == []


def test_averaged_models(tmp_path, caplog):
    lines, _ = loaded_with(tmp_path, caplog, AveragedModel(build(), use_buffers=True).state_dict())
    assert lines == line(tmp_path, "removed the prefix 'module.' from all names; ignored n_averaged")
    wrapped = nn.Module()
    wrapped.average = torch.compile(AveragedModel(build()))
    lines, _ = loaded_with(tmp_path, caplog, wrapped.state_dict())
    prefix = "average._orig_mod.module."
    assert lines == line(tmp_path, f"removed the prefix '{prefix}' from all names; ignored n_averaged")


def test_modules_that_were_compiled_by_themselves(tmp_path, caplog):
    model = build()
    model[0], model[1] = torch.compile(model[0]), torch.compile(model[1])
    lines, _ = loaded_with(tmp_path, caplog, model.state_dict())
    assert lines == line(tmp_path, "removed '_orig_mod.' within names")
    lines, _ = loaded_with(tmp_path, caplog, prefixed(model.state_dict(), "module."))
    expected = "removed the prefix 'module.' from all names; removed '_orig_mod.' within names"
    assert lines == line(tmp_path, expected)


def test_leftovers_of_profilers(tmp_path, caplog, weights):
    left = {
        name: torch.zeros(1, dtype=torch.float64) for name in ("total_ops", "1.total_params", "0.total_ops")
    }
    lines, _ = loaded_with(tmp_path, caplog, {"model": {**weights, **left}})
    assert lines == line(tmp_path, "ignored total_ops, total_params")
    lines, _ = loaded_with(
        tmp_path, caplog, {**prefixed({**weights, **left}, "module."), "total_ops": left["total_ops"]}
    )
    assert lines == line(
        tmp_path, "removed the prefix 'module.' from all names; ignored total_ops, total_params"
    )
    torch.save({**weights, "total_ops": torch.zeros(2)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="has total_ops, which the model lacks"):
        load_weights(tmp_path / "x.pt", build())


def test_files_of_old_versions_of_torch(tmp_path, caplog, weights):
    tracked = weights.pop("1.num_batches_tracked")
    lines, network = loaded_with(tmp_path, caplog, weights)
    assert lines == line(tmp_path, "num_batches_tracked missing, counters start at 0")
    assert tracked == 7 and network[1].num_batches_tracked == 0
    two = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    partial = {name: value for name, value in two.state_dict().items() if name != "1.num_batches_tracked"}
    torch.save(partial, tmp_path / "partial.pt")
    with pytest.raises(CheckpointError, match=r"misses 1\.num_batches_tracked"):
        load_weights(tmp_path / "partial.pt", two)


def test_everything_at_once_is_one_line(tmp_path, caplog, weights):
    del weights["1.num_batches_tracked"]
    content = {"net": {**prefixed(weights, "module._orig_mod."), "total_ops": torch.zeros(1)}, "acc": 93.1}
    lines, _ = loaded_with(tmp_path, caplog, content)
    assert lines == line(
        tmp_path,
        "loaded the weights under 'net'; removed the prefix 'module._orig_mod.' from all names; "
        "ignored total_ops; num_batches_tracked missing, counters start at 0",
    )


def test_the_only_state_dict_in_a_file_is_taken(tmp_path, caplog, weights):
    """As the tutorials of PyTorch save; the other keys have no known meaning and are not used."""
    content = {
        "epoch": 3,
        "model_state_dict": weights,
        "optimizer_state_dict": {"state": {}, "param_groups": []},
    }
    lines, _ = loaded_with(tmp_path, caplog, content)
    assert lines == line(tmp_path, "loaded the weights under 'model_state_dict'")
    torch.save({"net": weights, "ema": weights}, tmp_path / "two.pt")
    with pytest.raises(CheckpointError, match=r"several state dicts \(net, ema\) and none under `model`"):
        read_checkpoint(tmp_path / "two.pt")


def test_files_as_they_should_be_need_no_line(tmp_path, caplog, weights):
    """Also published ones, whose names have the prefix `module.`."""
    assert loaded_with(tmp_path, caplog, weights)[0] == []
    assert loaded_with(tmp_path, caplog, weights, "x.safetensors")[0] == []
    assert loaded_with(tmp_path, caplog, {"model": prefixed(weights, "module.")})[0] == []
    with caplog.at_level(logging.INFO):
        save_checkpoint(tmp_path / "native.pt", {"model": weights, "optimizer": {}, "last_epoch": 1})
        load_weights(tmp_path / "native.pt", build())
        model = build()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        write_published(tmp_path / "published.pt", published_content(model, optimizer, 7, 50))
        assert load_weights(tmp_path / "published.pt", build()).epoch == 7
    assert not caplog.records


def test_data_parallel_alone_is_said_of_a_plain_state_dict(tmp_path, caplog, weights):
    lines, _ = loaded_with(tmp_path, caplog, prefixed(weights, "module."))
    assert lines == line(tmp_path, "removed the prefix 'module.' from all names")


def test_safetensors(tmp_path, caplog, weights):
    lines, _ = loaded_with(tmp_path, caplog, prefixed(weights, "_orig_mod."), "x.safetensors")
    assert lines == line(tmp_path, "removed the prefix '_orig_mod.' from all names", "x.safetensors")


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.module = build()

    def forward(self, values):
        return self.module(values)


def test_a_prefix_of_the_network_itself_stays(tmp_path, caplog):
    own = Wrapped().state_dict()
    assert match_names(own, own).changes == ()
    assert match_names(prefixed(own, "module."), own).prefix == "module."
    mixed = {"module.a.weight": torch.ones(1), "fc.weight": torch.ones(1)}
    assert match_names(mixed, mixed).changes == ()
    assert match_names(prefixed(mixed, "module."), mixed).weights.keys() == mixed.keys()
    counter = {"module.w": torch.ones(1), "module.n_averaged": torch.ones(1), "total_ops": torch.ones(1)}
    assert match_names(counter, counter).changes == ()
    torch.save(build().state_dict(), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"misses module\.0\.weight"):
        load_weights(tmp_path / "x.pt", Wrapped())


def test_a_prefix_of_some_names_stays(tmp_path, weights):
    """Removing it would be a guess at which of two parts is meant."""
    torch.save({**prefixed(weights, "model."), "teacher.weight": torch.ones(2)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"misses 0\.weight"):
        load_weights(tmp_path / "x.pt", build())


def test_names_that_would_coincide_stay(weights):
    both = {**prefixed(weights, "_orig_mod."), **weights}
    assert match_names(both, weights).weights.keys() == both.keys()


@pytest.mark.parametrize(
    "other", [{"format": "pt"}, {"checksum": "d41d8cd9"}, {"format": "pt", "checksum": "1"}]
)
@pytest.mark.parametrize("under", ["model", "state_dict"])
def test_entries_of_other_programs_are_not_those_of_this_format(tmp_path, caplog, weights, under, other):
    """A `format` or a `checksum` that another program wrote has another meaning."""
    assert loaded_with(tmp_path, caplog, {under: weights, "epoch": 3, **other})[0] == []


def test_files_of_a_newer_format_are_refused(tmp_path, weights):
    torch.save({"model": weights, "format": 3, "checksum": "x"}, tmp_path / "x.pt")
    message = r"x\.pt: was written by a newer version of this project \(format 3, this one reads up to 2\)"
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "x.pt")
    with pytest.raises(WiringError, match=message):
        read_content(tmp_path / "x.pt")


def test_settings_under_model_do_not_hide_the_weights_under_state_dict(tmp_path, caplog, weights):
    content = {"model": {"depth": 18, "name": "resnet"}, "state_dict": weights}
    assert loaded_with(tmp_path, caplog, content)[0] == []
    assert find_weights(content, tmp_path)[1] == "state_dict"


def test_the_library_reads_the_same_files(tmp_path, weights):
    """Options of timm as an object, and the checksum of this project's files."""
    torch.save({"state_dict": weights, "args": argparse.Namespace(lr=0.1)}, tmp_path / "timm.pt")
    assert read_content(tmp_path / "timm.pt")["state_dict"].keys() == weights.keys()
    save_checkpoint(tmp_path / "x.pt", {"model": weights})
    content = torch.load(tmp_path / "x.pt", weights_only=True)
    content["model"]["0.weight"] += 1
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(WiringError, match=r"x\.pt: is damaged: its content does not match its checksum"):
        read_content(tmp_path / "x.pt")


def test_weights_of_an_unwired_network_are_loaded_into_a_wired_one(tmp_path):
    """The rules' buffers are unchanged, as with `load_state_dict`."""
    dense, wired = (nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)) for _ in range(2))
    wiring = wire(wired, "random", density=0.5)
    before = wiring.adjacency()
    torch.save(dense.state_dict(), tmp_path / "x.pt")
    load_weights(tmp_path / "x.pt", wired)
    assert torch.equal(wired[1].weight, dense[1].weight)
    assert all(torch.equal(mask, before[name]) for name, mask in wiring.adjacency().items())


def test_a_file_that_must_not_be_read_is_not_called_damaged(tmp_path, monkeypatch, weights):
    torch.save(weights, tmp_path / "x.pt")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(CheckpointError, match=r"x\.pt: cannot be read \(Permission denied\)"):
        read_checkpoint(tmp_path / "x.pt")
