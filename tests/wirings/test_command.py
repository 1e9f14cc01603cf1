"""The command `wirings`: what it prints and writes, and one message for each mistake."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import wirings
from tests.conftest import ROOT
from tests.helpers.equality import assert_close
from tests.helpers.exported_files import needs_onnx, run_onnx, save_safetensors
from wirings.command import main

MODULE = """
import torch
from torch import nn
import wirings

def net(classes=5, wired=False, size=None, tied=False):
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 12, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, classes),
    )
    if size is not None:
        layers.image_size = size
    if wired:
        wirings.wire(layers, density=0.05)
    return layers

class Parity(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = net()

    def forward(self, images):
        return self.layers(images) * (2 if len(images) % 2 == 0 else 2.0)

class Positive(wirings.EdgeRule):
    def __init__(self, potential, num_edges, above=0.0):
        super().__init__(potential, num_edges)
        self.above = above

    def select(self):
        return wirings.EdgeSelection.from_mask(self.weight > self.above)

def first_of_each(shapes, density):
    return {name: 1 for name in shapes}

def failing():
    raise LookupError("no table\\nat all")

def leaving():
    raise SystemExit("left")

number = 3
def text():
    return "text"
"""


@pytest.fixture
def space(tmp_path, monkeypatch):
    """A current folder with a module that makes networks, and the weights of one of them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_nets.py").write_text(MODULE)
    (tmp_path / "broken_nets.py").write_text("1 / 0\n")
    yield tmp_path
    for name in ("own_nets", "broken_nets"):
        sys.modules.pop(name, None)


def network(seed: int = 1) -> nn.Sequential:
    """As `own_nets.net()`, trained."""
    names: dict = {}
    exec(MODULE, names)
    model: nn.Sequential = names["net"]()
    torch.manual_seed(seed)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -1, 1)
    model[1].running_mean.uniform_(-0.2, 0.2)
    return model


def pruned(seed: int = 1) -> nn.Sequential:
    """Channels 8 to 11 of the second convolution have no weights but zeros into the classifier."""
    model = network(seed)
    model[7].weight.data[:, 8:] = 0
    return model


COMMON = ["--model", "own_nets:net", "--shape", "3", "10", "12"]


def run(capsys, *argv: str) -> str:
    """What the command prints; it succeeds."""
    status = main(list(argv))
    out, err = capsys.readouterr()
    assert status == 0, err
    return out


def refused(capsys, *argv: str) -> str:
    """The message of a command that fails."""
    status = main(list(argv))
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.startswith("wirings: ")
    assert "Traceback" not in err
    return err


def cells(table: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {row[0]: row[1:] for row in rows}


def test_a_profile_counts_the_weights_other_than_zero(space, capsys):
    torch.save(pruned().state_dict(), "w.pt")
    table = cells(run(capsys, "profile", "w.pt", *COMMON))
    assert table["7"] == [str(5 * 8 + 5), "40", "60", "40", "", ""]
    assert table["0"][:2] == ["432", f"{432 * 120:,}"]
    assert table["3"][:2] == [f"{16 * 12 * 9 + 12:,}", f"{16 * 12 * 9 * 80:,}"]


def test_a_profile_of_a_network_that_is_wired_here(space, capsys):
    torch.save(network().state_dict(), "w.pt")
    table = cells(run(capsys, "profile", "w.pt", *COMMON, "--density", "0.25"))
    assert table["total"][2:4] == ["2,220", "555"]
    table = cells(run(capsys, "profile", "w.pt", *COMMON, "--rule", "random", "--exclude", "0", "3"))
    assert table["7"][2:4] == ["60", "6"]
    assert table["0"][2:4] == ["", ""]
    table = cells(run(capsys, "profile", "w.pt", *COMMON, "--budget", "0.*=0.5", "*=0.1"))
    assert (table["0"][3], table["7"][3]) == ("216", "6")
    table = cells(run(capsys, "profile", "w.pt", *COMMON, "--budget", "own_nets:first_of_each"))
    assert table["total"][3] == "3"
    options = ["--rule", "own_nets:Positive", "--include", "7", "--option", "above=0.5"]
    table = cells(run(capsys, "profile", "w.pt", *COMMON, *options))
    assert table["7"][3] == str(int((network()[7].weight > 0.5).sum()))
    table = cells(run(capsys, "profile", "w.pt", *COMMON, "--model-args", "wired=true"))
    assert table["total"][2:4] == ["2,220", "111"]


def test_the_shape_that_a_network_states(space, capsys):
    torch.save(network().state_dict(), "w.pt")
    arguments = ("profile", "w.pt", "--model", "own_nets:net")
    stated = run(capsys, *arguments, "--model-args", "size=16")
    assert stated == run(capsys, *arguments, "--shape", "3", "16", "16")
    message = refused(capsys, *arguments)
    assert "Sequential has no image_size; give the shape of its images: --shape C H W" in message


KINDS = {
    "state dict": (".pt", lambda weights: weights),
    "model": (".pth", lambda weights: {"model": weights, "epoch": 3}),
    "state_dict": (".pt", lambda weights: {"state_dict": weights, "optimizer": {"state": {}}}),
    "module": (".pt", lambda weights: {f"module.{name}": value for name, value in weights.items()}),
    "compiled": (".pt", lambda weights: {f"_orig_mod.{name}": value for name, value in weights.items()}),
    "both": (".pt", lambda weights: {f"module._orig_mod.{name}": value for name, value in weights.items()}),
    "safetensors": (".safetensors", lambda weights: weights),
}


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_weights(space, capsys, kind):
    model = pruned()
    ending, change = KINDS[kind]
    content = change(dict(model.state_dict()))
    (save_safetensors if ending == ".safetensors" else torch.save)(content, f"w{ending}")
    run(capsys, "compact", f"w{ending}", *COMMON, "--output", "out.pt2")
    images = torch.randn(3, 3, 10, 12)
    with torch.no_grad():
        assert_close(torch.export.load("out.pt2").module()(images), model.eval()(images))


def test_compact_writes_a_program_for_any_number_of_images(space, capsys):
    model = pruned()
    torch.save(model.state_dict(), "w.pt")
    out = run(capsys, "compact", "w.pt", *COMMON, "--output", "folder/out.pt2")
    assert cells(out)["3"][:2] == ["12", "8"]
    assert "Parameters: 2,269 before, " in out
    assert "folder/out.pt2: 0.0" in out
    assert "any number of images, logits in torch" in out
    program = torch.export.load("folder/out.pt2").module()
    for count in (1, 4):
        images = torch.randn(count, 3, 10, 12)
        with torch.no_grad():
            assert_close(program(images), model.eval()(images))


def test_a_program_for_one_image_at_a_time(space, capsys):
    torch.save({f"layers.{name}": value for name, value in network().state_dict().items()}, "w.pt")
    arguments = ("w.pt", "--model", "own_nets:Parity", "--shape", "3", "8", "8")
    out = run(capsys, "compact", *arguments, "--output", "out.pt2")
    assert "for one image at a time, logits in torch" in out
    image = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        assert_close(torch.export.load("out.pt2").module()(image), 2 * network().eval()(image))


@needs_onnx
def test_export_writes_other_formats(space, capsys):
    model = network()
    torch.save(model.state_dict(), "w.pt")
    wiring = ["--rule", "dnw", "--density", "0.05"]
    assert "parameters, logits in onnxruntime" in run(
        capsys, "export", "w.pt", *COMMON, *wiring, "--output", "out.onnx"
    )
    run(capsys, "export", "w.pt", *COMMON, *wiring, "--output", "out.pt2")
    wirings.wire(model, density=0.05)
    images = torch.randn(3, 3, 10, 12)
    with torch.no_grad():
        expected = model.eval()(images)
        assert_close(run_onnx(space / "out.onnx", images), expected)
        assert_close(torch.export.load("out.pt2").module()(images), expected)
    message = refused(capsys, "export", "w.pt", *COMMON, "--output", "out.safetensors")
    assert ".safetensors is for MobileNet graphs" in message


def test_a_network_with_a_structure(space, capsys):
    """Those of this project; the program is for images of one size."""
    arguments = ["--model", "tests.wirings.test_command:described"]
    model = described()
    torch.save(model.state_dict(), "w.pt")
    out = run(capsys, "compact", "w.pt", *arguments, "--shape", "3", "24", "24", "--output", "out.pt2")
    assert out.startswith("Parameters: ")
    run(capsys, "export", "w.pt", *arguments, "--shape", "3", "24", "24", "--output", "out.safetensors")
    images = torch.randn(3, 3, 24, 24)
    with torch.no_grad():
        assert_close(torch.export.load("out.pt2").module()(images), model.eval()(images))


def described() -> nn.Module:
    from tests.helpers.random_wirings import small_mobilenet

    return small_mobilenet(0, image_size=24)


def test_masks_of_wired_networks(space, capsys):
    """A file of a wired network has the masks of its rules, one of an unwired network has none."""
    model = network()
    wirings.wire(model, "random", 0.2)
    torch.save(model.state_dict(), "wired.pt")
    options = ["--rule", "random", "--density", "0.2"]
    run(capsys, "compact", "wired.pt", *COMMON, *options, "--output", "out.pt2")
    images = torch.randn(2, 3, 10, 12)
    with torch.no_grad():
        assert_close(torch.export.load("out.pt2").module()(images), model.eval()(images))
    message = refused(capsys, "compact", "wired.pt", *COMMON, "--output", "out.pt2")
    assert "has 0.wiring.mask, which the model lacks" in message
    plain = network()
    torch.save(plain.state_dict(), "plain.pt")
    options = ["--rule", "fine_tune", "--density", "0.2"]
    table = cells(run(capsys, "profile", "plain.pt", *COMMON, *options))
    assert table["total"][2:4] == ["2,220", "444"]


class Code:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def damaged(space: Path) -> None:
    torch.save(network().state_dict(), "w.pt")
    torch.save(network(), "whole.pt")
    content = Path("w.pt").read_bytes()
    Path("cut.pt").write_bytes(content[: len(content) // 2])
    Path("empty.pt").write_bytes(b"")
    Path("code.pt").write_bytes(pickle.dumps(Code()))
    torch.save({"model": {"a": Code()}}, "code_within.pt")
    torch.save({"epoch": 3}, "none.pt")
    torch.save([1, 2], "list.pt")
    torch.save({"g": {"a": torch.ones(1)}, "h": {"a": torch.ones(1)}}, "several.pt")
    save_safetensors(dict(network().state_dict()), "w.safetensors")
    Path("cut.safetensors").write_bytes(Path("w.safetensors").read_bytes()[:200])
    torch.save({**network().state_dict(), "7.bias": torch.zeros(6)}, "shape.pt")
    torch.save({f"{name}s": value for name, value in network().state_dict().items()}, "names.pt")
    torch.save({name: "text" for name in network().state_dict()} | {"0.weight": torch.ones(1)}, "text.pt")


FILES = {
    "missing.pt": "missing.pt: there is no such file",
    "w.pth": "w.pth: there is no such file; did you mean w.pt?",
    ".": ".: is a folder; name a checkpoint file in it",
    "cut.pt": "cut.pt: is damaged or no checkpoint",
    "empty.pt": "empty.pt: is damaged",
    "code.pt": "code.pt: is damaged, or holds more than plain weights; nothing of it was executed",
    "code_within.pt": "code_within.pt: is damaged, or holds more than plain weights; nothing of it was",
    "whole.pt": "whole.pt: holds an object of torch.nn.modules.container.Sequential, which is not a plain",
    "none.pt": "none.pt: is not a checkpoint: it has no weights under `model` or `state_dict`",
    "list.pt": "list.pt: is not a checkpoint",
    "several.pt": "several.pt: has several state dicts (g, h)",
    "cut.safetensors": "cut.safetensors: is damaged or no .safetensors file",
    "shape.pt": "7.bias has shape [6], the model's is [5]",
    "names.pt": "names.pt: does not fit this network; check its name and its sizes:\n  ",
    "text.pt": "text.pt: is not a checkpoint",
    "own_nets.py": "own_nets.py: is damaged",
}


@pytest.mark.parametrize("file", FILES)
def test_files_that_are_refused(space, capsys, file):
    damaged(space)
    assert FILES[file] in refused(capsys, "profile", file, *COMMON)
    assert not Path("executed").exists()


NETWORKS = [
    (["own_nets"], "--model: own_nets has not the form module:name"),
    (["nowhere:net"], "--model: there is no module nowhere; it must be importable from the current folder"),
    (["own_nets:nett"], "--model: module own_nets has no nett; did you mean net?"),
    (["broken_nets:net"], "--model: importing broken_nets:net raised ZeroDivisionError: division by zero"),
    (["own_nets:failing"], "--model: own_nets:failing raised LookupError: no table\n"),
    (["own_nets:leaving"], "--model: own_nets:leaving raised SystemExit: left"),
    (["own_nets:number"], "--model: own_nets:number cannot be called"),
    (["own_nets:text"], "--model: own_nets:text returned str, not a torch.nn.Module"),
    (["own_nets:net", "--model-args", "depth=3"], "raised TypeError: net() got an unexpected keyword"),
    (["own_nets:net", "--model-args", "depth"], "--model-args: depth has not the form name=value"),
    (["own_nets:net", "--model-args", "size=3", "size=4"], "--model-args: size is set twice"),
    (["own_nets:net", "--model-args", "classes=6"], "7.weight has shape [5, 12], the model's is [6, 12]"),
    (["own_nets:net", "--rule", "dnv"], "did you mean dnw?"),
    (["own_nets:net", "--rule", "own_nets:net"], "is not a subclass of wirings.rules.base.EdgeRule"),
    (["own_nets:net", "--rule", "own_nets:Net"], "--rule: module own_nets has no Net; did you mean net?"),
    (["own_nets:net", "--density", "1.5"], "density must be within 0..1, got 1.5"),
    (["own_nets:net", "--budget", "urk"], "did you mean erk?"),
    (["own_nets:net", "--budget", "0=much"], "--budget: the density of 0 is not a number but much"),
    (["own_nets:net", "--budget", "uniform", "erk"], "--budget: uniform has not the form name=value"),
    (["own_nets:net", "--include", "layer9"], "include: layer9 matches no module of the network"),
    (["own_nets:net", "--option", "rho=0.5"], "rule dnw has no option rho"),
    (["own_nets:net", "--model-args", "wired=true", "--density", "0.2"], "is wired already; remove --"),
    (["own_nets:net", "--shape", "1", "8", "8"], "it does not run on an image of 1×8×8"),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "message"), NETWORKS)
def test_networks_that_are_refused(space, capsys, argv, message):
    torch.save(network().state_dict(), "w.pt")
    error = refused(capsys, "profile", "w.pt", "--shape", "3", "8", "8", "--model", *argv)
    assert message in error


def test_outputs_that_are_refused(space, capsys):
    torch.save(network().state_dict(), "w.pt")
    save_safetensors(dict(network().state_dict()), "w.safetensors")
    before = Path("w.safetensors").read_bytes()
    for command, output, message in [
        ("compact", "out.onnx", "the name must end in .pt2, got out.onnx"),
        ("export", "out.pt", "the name must end in .onnx, .pt2, .safetensors or .wiring, got out.pt"),
        ("export", "/proc/out.pt2", "--output: /proc/out.pt2 cannot be written: "),
        ("export", "w.pt/out.pt2", "--output: w.pt/out.pt2 cannot be written: "),
    ]:
        assert message in refused_after_report(capsys, command, "w.pt", *COMMON, "--output", output)
    message = refused(capsys, "export", "w.safetensors", *COMMON, "--output", "./w.safetensors")
    assert "--output: w.safetensors is the file of the weights; name another one" in message
    assert Path("w.safetensors").read_bytes() == before


def refused_after_report(capsys, *argv: str) -> str:
    assert main(list(argv)) == 2
    return capsys.readouterr().err


def test_a_file_is_written_whole_or_not_at_all(space, capsys, monkeypatch):
    torch.save(network().state_dict(), "w.pt")
    Path("out.pt2").write_text("old")

    def full_disk(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    message = refused_after_report(capsys, "compact", "w.pt", *COMMON, "--output", "out.pt2")
    assert "--output: out.pt2 cannot be written: No space left on device" in message
    assert Path("out.pt2").read_text() == "old"
    assert not list(space.glob("*.partial")) + list(space.glob(".*.partial"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["prune"], "invalid choice: 'prune'"),
        (["profile", "w.pt"], "the following arguments are required: --model"),
        (["compact", "w.pt", "--model", "a:b"], "the following arguments are required: --output"),
        (["profile", "w.pt", "--model", "a:b", "--shape", "3", "0", "8"], "argument --shape: invalid"),
        (["profile", "w.pt", "--model", "a:b", "--shape", "3"], "argument --shape: expected 3 arguments"),
        (["profile", "w.pt", "--model", "a:b", "--density", "x"], "argument --density: invalid float value"),
    ],
)
def test_wrong_arguments(capsys, argv, message):
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_help_imports_no_torch():
    program = "import sys, wirings.command as c; c.make_parser().format_help(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "wirings", "profile", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "MODULE:CALLABLE" in done.stdout


def test_the_current_folder_is_imported_from_while_the_command_runs(space, capsys):
    torch.save(network().state_dict(), "w.pt")
    before = list(sys.path)
    run(capsys, "profile", "w.pt", *COMMON)
    assert sys.path == before
