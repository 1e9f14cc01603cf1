"""`wirings.compile`: networks of torchvision by the native engine give the logits of torch."""

import copy
import os
import pickle
import signal
import subprocess
import threading

import pytest
import torch
import torchvision
from torch import nn

import wirings
from tests.conftest import ROOT
from tests.helpers.engines import NEEDS_COMPILER
from tests.helpers.equality import assert_close
from tests.helpers.random_wirings import small_mobilenet
from wirings.errors import WiringError
from wirings.native import build

pytestmark = NEEDS_COMPILER


def with_statistics(model, density):
    """The network in evaluation mode with norms as after training, and a part of its weights."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = 0.1 * torch.randn(module.num_features, generator=generator)
            module.running_var = 0.5 + torch.rand(module.num_features, generator=generator)
        if isinstance(module, nn.Conv2d) and module.weight.shape[1] > 3:
            used = torch.rand(module.weight.shape, generator=generator) < density
            module.weight.data *= used / density**0.5
    return model.eval()


class UNet(nn.Module):
    """Two levels, with transposed convolutions and concatenated maps."""

    def __init__(self, width=8):
        super().__init__()
        self.down = nn.ModuleList(self._block(*sizes) for sizes in ((3, width), (width, 2 * width)))
        self.bottom = self._block(2 * width, 4 * width)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * size, size, 2, stride=2) for size in (2 * width, width)
        )
        self.after = nn.ModuleList(self._block(2 * size, size) for size in (2 * width, width))
        self.last = nn.Conv2d(width, 2, 1)

    @staticmethod
    def _block(inputs, outputs):
        conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))

    def forward(self, x):
        skipped = []
        for block in self.down:
            x = block(x)
            skipped.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for up, block in zip(self.up, self.after, strict=True):
            x = block(torch.cat([up(x), skipped.pop()], 1))
        return self.last(x)


def torchvision_network(name):
    return lambda: getattr(torchvision.models, name)(weights=None, num_classes=10)


NETWORKS = {
    "resnet18": torchvision_network("resnet18"),
    "mobilenet_v3_small": torchvision_network("mobilenet_v3_small"),
    "shufflenet_v2_x0_5": torchvision_network("shufflenet_v2_x0_5"),
    "unet": UNet,
}
LARGE = {
    name: torchvision_network(name)
    for name in (
        "resnet50",
        "mobilenet_v2",
        "efficientnet_b0",
        "densenet121",
        "squeezenet1_0",
        "regnet_y_400mf",
        "vgg11_bn",
    )
}


def check(model, images=5, size=64):
    compiled = wirings.compile(model, torch.randn(2, 3, size, size))
    pixels = torch.randn(images, 3, size, size)
    with torch.no_grad():
        assert_close(compiled(pixels), model(pixels))
        assert_close(compiled(pixels[:1]), model(pixels[:1]))
    return compiled


@pytest.mark.parametrize("name", [*NETWORKS, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
@pytest.mark.parametrize("density", [0.1, pytest.param(0.05, marks=pytest.mark.slow)])
def test_networks(name, density):
    """In one program, without any operation of torch."""
    torch.manual_seed(0)
    model = with_statistics({**NETWORKS, **LARGE}[name](), density)
    compiled = check(model)
    assert not compiled.torch_calls
    assert str(compiled).startswith("native engine: 1 programs of ")


def test_a_wired_network():
    torch.manual_seed(0)
    model = with_statistics(torchvision.models.resnet18(weights=None, num_classes=10), 1.0)
    wirings.wire(model, rule="dnw", density=0.05)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    compiled = check(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    edges = int((compiled.program.values != 0).sum())
    assert edges < 0.1 * sum(parameter.numel() for parameter in model.parameters())


def test_a_mobilenet_graph():
    model = small_mobilenet(image_size=32)
    compiled = wirings.compile(model, torch.randn(2, 3, 40, 33))
    pixels = torch.randn(3, 3, 40, 33)
    assert_close(compiled(pixels), model(pixels))


class Partly(nn.Module):
    """Operations that the engine does not know, between convolutions."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 1)
        self.norm = nn.LayerNorm(6)

    def forward(self, x):
        x = self.first(x).relu()
        x = nn.functional.gelu(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        x = self.second(x)
        return {"maps": x, "mean": x.mean((2, 3)).softmax(1)}


def test_what_the_engine_does_not_know_is_run_by_torch():
    torch.manual_seed(0)
    model = Partly().eval()
    compiled = wirings.compile(model, torch.randn(1, 3, 12, 9))
    pixels = torch.randn(4, 3, 12, 9)
    with torch.no_grad():
        expected, found = model(pixels), compiled(pixels)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(found[name], value)
    assert "gelu.default is not an operation of the engine" in str(compiled)
    with pytest.raises(WiringError, match="the engine does not run the whole network: native engine: 2 prog"):
        compiled.save("never.wiring")


class Unusual(nn.Module):
    """Orders and views that a simple translation gets wrong."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.first(x)
        x = x + x  # a sum of a convolution with itself
        left, right = x.chunk(2, 1)
        left = torch.sort(left, 1).values  # torch runs it before `right` is read
        x = self.second(left) * right
        pixels = x.permute(0, 2, 3, 1).reshape(-1, 4)  # pixels of all images in one dimension
        rows = pixels.relu().reshape(x.shape[0], -1)
        return rows, torch.cat([x, x], 1).relu(), x.add(right, alpha=2)


class Discarding(nn.Module):
    """Maps that several operations write, and some of which nothing reads."""

    def __init__(self):
        super().__init__()
        self.up, self.again = nn.ConvTranspose2d(3, 6, 2, stride=2), nn.Conv2d(2, 6, 3, padding=1)
        self.mixed = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.up(x)[:, 1:3]
        y = self.again(x).relu()
        return self.mixed(torch.cat([y, self.again(y[:, 2:4])[:, :2]], 1)) + self.mixed(torch.cat([x, y], 1))


def test_maps_that_nothing_reads():
    torch.manual_seed(0)
    check(Discarding().eval(), size=9)


def test_unusual_networks():
    torch.manual_seed(0)
    model = Unusual().eval()
    compiled = wirings.compile(model, torch.randn(1, 3, 7, 6))
    for images in (1, 4):
        pixels = torch.randn(images, 3, 7, 6)
        with torch.no_grad():
            for found, expected in zip(compiled(pixels), model(pixels), strict=True):
                assert_close(found, expected)
    assert "sort.default" in str(compiled)


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (torch.zeros(2, 3, 8, 8, dtype=torch.float64), "example must be float32 images"),
        (torch.zeros(3, 8, 8), r"example must be float32 images .* got torch.float32 \(3, 8, 8\) on cpu"),
        (torch.zeros(2, 4, 8, 8), r"does not run on an example of shape \(2, 4, 8, 8\)"),
    ],
)
def test_wrong_examples_are_refused(example, message):
    with pytest.raises(WiringError, match=message):
        wirings.compile(Partly(), example)


def test_images_of_another_size_are_refused():
    compiled = wirings.compile(nn.Conv2d(3, 2, 3), torch.zeros(1, 3, 9, 9))
    with pytest.raises(WiringError, match=r"images must be \(images, 3, 9, 9\), got \(1, 3, 9, 8\)"):
        compiled(torch.zeros(1, 3, 9, 8))
    with pytest.raises(WiringError, match=r"float32 images on the CPU, got torch\.float64 on cpu"):
        compiled(torch.zeros(1, 3, 9, 9).double())
    assert compiled(torch.zeros(0, 3, 9, 9)).shape == (0, 2, 7, 7)


def test_copies_and_forked_processes():
    """Also while another thread runs the network, whose lock the child inherits."""
    compiled = wirings.compile(nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU()), torch.zeros(1, 3, 80, 80))
    pixels = torch.randn(2, 3, 80, 80)
    expected = compiled(pixels)
    assert torch.equal(copy.deepcopy(compiled)(pixels), expected)
    assert torch.equal(pickle.loads(pickle.dumps(compiled))(pixels), expected)

    torch.set_num_threads(1)  # torch's own threads do not survive a fork
    many, stop = torch.randn(64, 3, 80, 80), threading.Event()  # nearly always within a call

    def run():
        while not stop.is_set():
            compiled(many)

    other = threading.Thread(target=run)
    other.start()
    statuses = []
    for _ in range(5):
        child = os.fork()
        if not child:
            signal.alarm(20)
            os._exit(0 if torch.equal(compiled(pixels), expected) else 1)
        statuses.append(os.waitpid(child, 0)[1])
    stop.set()
    other.join()
    assert statuses == [0] * 5


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small network, and its file."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 12, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 5),
    ]
    model = with_statistics(nn.Sequential(*layers), 1.0)
    path = tmp_path_factory.mktemp("wiring") / "net.wiring"
    wirings.compile(model, torch.randn(1, 3, 10, 9)).save(path)
    return model, path


def test_a_file_of_a_network(saved):
    model, path = saved
    loaded, pixels = wirings.load_compiled(path), torch.randn(3, 3, 10, 9)
    with torch.no_grad():
        assert_close(loaded(pixels), model(pixels))
    assert wirings.load_compiled(path).shape == (3, 10, 9)


def test_export_writes_such_a_file(saved, tmp_path):
    model, _ = saved
    report = wirings.export(model, tmp_path / "net.wiring", (3, 10, 9))
    assert "MB, 5 steps" in report
    pixels = torch.randn(2, 3, 10, 9)
    with torch.no_grad():
        assert_close(wirings.load_compiled(tmp_path / "net.wiring")(pixels), model(pixels))


@pytest.mark.parametrize("part", range(12))
def test_damaged_files_are_refused_or_harmless(saved, tmp_path, part):
    """Numbers of the header and of the steps are changed, and files cut off: none crashes the process."""
    _, path = saved
    content = path.read_bytes()
    generator = torch.Generator().manual_seed(part)

    def random(high):
        return int(torch.randint(0, high, (1,), generator=generator))

    reached = 0
    for _ in range(60):
        damaged = bytearray(content)
        place = 8 + 8 * random(min(len(content), 3200) // 8 - 1)
        number = (-1, 0, 1, 2**31, 2**62, -(2**63), random(1000), random(100_000))[random(8)]
        damaged[place : place + 8] = number.to_bytes(8, "little", signed=True)
        if random(10) == 0:
            del damaged[random(len(damaged)) :]
        target = tmp_path / "damaged.wiring"
        target.write_bytes(damaged)
        try:
            network = wirings.load_compiled(target)
        except WiringError as error:
            assert str(error).startswith(("engine native: ", "the network has "))
            continue
        reached += 1
        if max(network.shape) < 1000:
            network(torch.zeros(1, *network.shape))
    assert reached


def test_a_file_of_another_version_is_refused(saved, tmp_path):
    content = bytearray(saved[1].read_bytes())
    content[8] = 9
    (tmp_path / "new.wiring").write_bytes(content)
    with pytest.raises(WiringError, match="its version is 9; this library reads version 1"):
        wirings.load_compiled(tmp_path / "new.wiring")
    (tmp_path / "other.wiring").write_bytes(b"PK" + bytes(100))
    with pytest.raises(WiringError, match="it is not a file of wirings"):
        wirings.load_compiled(tmp_path / "other.wiring")


def test_the_example_in_c(saved, tmp_path):
    """Without Python: the library, and the program of docs/inference.md."""
    model, path = saved
    library, program = tmp_path / "libwirings.so", tmp_path / "classify"
    build.build_library(library)
    source = ROOT / "docs" / "classify.c"
    command = [
        "gcc",
        "-Wall",
        "-Werror",
        f"-I{build.KERNELS}",
        source,
        library,
        f"-Wl,-rpath,{tmp_path}",
        "-o",
        program,
    ]
    subprocess.run(command, check=True, capture_output=True)
    pixels = torch.randn(2, 3, 10, 9)
    (tmp_path / "images.bin").write_bytes(pixels.numpy().tobytes())
    done = subprocess.run([program, path, tmp_path / "images.bin"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = model(pixels)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [int(line[1].rstrip(":")) for line in lines] == [0, 1]
    assert [int(line[3]) for line in lines] == expected.argmax(1).tolist()
    (tmp_path / "images.bin").write_bytes(b"short")
    failed = subprocess.run([program, path, tmp_path / "images.bin"], capture_output=True, text=True)
    assert failed.returncode == 1 and "holds no whole image" in failed.stderr
