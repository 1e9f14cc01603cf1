"""Networks of one's own that describe their structure: fast evaluation, export, defaults."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wirings.compact_network import CompactNetwork
from wirings.compacting import compact, engines_of
from wirings.engines import ENGINES
from wirings.errors import WiringError
from wirings.exporting import export
from wirings.layout import mean_of_relu
from wirings.native import NativeNetwork, build
from wirings.stages import Group, Stage
from wirings.structure import (
    AcyclicStructure,
    Classifier,
    CyclicStructure,
    FixedSteps,
    FoldableNorms,
    GraphLayer,
    Repeat,
    WiredNetwork,
    describes_forward,
    effective_edges,
    image_size,
    liveness,
    observations,
    parts_to_compile,
    stages,
    structure_of,
    wired_layers,
)

CPU_ENGINES = [engine for engine in ENGINES if engine not in ("triton", "native")]
NEEDS_COMPILER = pytest.mark.skipif(build.compiler() is None, reason="needs a C++ compiler")


class Masked(nn.Module):
    """Weights with a mask: no edge rule, but it has what structures ask for."""

    def __init__(self, targets, sources, density=0.4):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(targets, sources, 1, 1))
        self.register_buffer("mask", torch.rand(targets, sources, 1, 1) < density)

    def forward(self):
        return self.weight * self.mask

    def in_use(self):
        return self.mask


class Block(nn.Module):
    """One stage: `inputs` nodes feed `hidden` nodes, and both feed `outputs` nodes."""

    def __init__(self, inputs, hidden, outputs, stride, norm, density):
        super().__init__()
        self.inputs, self.hidden, self.outputs, self.stride = inputs, hidden, outputs, stride
        self.norms = nn.ModuleList([norm(inputs), norm(hidden)])
        self.filters = nn.Parameter(torch.randn(inputs + hidden, 1, 3, 3) / 3)
        self.edges = Masked(hidden + outputs, inputs + hidden, density)

    def forward(self, maps):
        weight, (first, second) = self.edges(), self.filters.split([self.inputs, self.hidden])
        entering = F.relu(self.norms[0](maps))
        entering = F.conv2d(entering, first, stride=self.stride, padding=1, groups=self.inputs)
        states = F.conv2d(entering, weight[: self.hidden, : self.inputs])
        sent = F.conv2d(F.relu(self.norms[1](states)), second, padding=1, groups=self.hidden)
        return F.conv2d(torch.cat([entering, sent], 1), weight[self.hidden :])

    def stage(self, name):
        middle, end = self.inputs, self.inputs + self.hidden
        groups = (
            Group(slice(0, middle), None, self.norms[0], self.filters[:middle], self.stride),
            Group(slice(middle, end), slice(0, self.hidden), self.norms[1], self.filters[middle:]),
        )
        return Stage(f"{name}.edges", self.edges, groups, slice(self.hidden, self.hidden + self.outputs))


def stem(kind, nodes):
    if kind == "modules":
        return nn.Sequential(nn.Conv2d(3, nodes, 5, stride=2, padding=2), nn.Hardswish())
    return nn.Conv2d(3, nodes, 3, stride=2, padding=1, bias=kind == "bias")


class Own(nn.Module):
    """Two stages. No subclass of WiredNetwork."""

    def __init__(self, stem_kind="bias", norm=nn.BatchNorm2d, stride=2, wired=False, density=0.4):
        super().__init__()
        self.stem = stem(stem_kind, 6)
        self.first, self.second = Block(6, 8, 7, 1, norm, density), Block(7, 5, 9, stride, norm, density)
        self.norm = norm(9)
        self.head = Masked(4, 9) if wired else nn.Linear(9, 4)

    def forward(self, images):
        maps = self.norm(self.second(self.first(self.stem(images))))
        features = F.relu(maps).mean((2, 3))
        return F.linear(features, self.head().flatten(1)) if self.is_wired else self.head(features)

    @property
    def is_wired(self):
        return isinstance(self.head, Masked)

    def wired_layers(self):
        return [
            GraphLayer("first.edges", self.first.edges, 8),
            GraphLayer("second.edges", self.second.edges, 4),
        ]

    def structure(self):
        listed = [self.first.stage("first"), self.second.stage("second")]
        head = Classifier(self.head) if self.is_wired else Classifier(self.head.weight, self.head.bias)
        return AcyclicStructure(self.stem, listed, self.norm, mean_of_relu, head)


def network(seed=0, kind=Own, **keys):
    """A network with norms as after a training."""
    torch.manual_seed(seed)
    model = kind(**keys)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.InstanceNorm2d)) and module.weight is not None:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
        if getattr(module, "running_var", None) is not None:
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def assert_same_logits(model, engine, images=None):
    images = torch.randn(3, 3, 17, 14) if images is None else images
    small = compact(model, engine)
    with torch.no_grad():
        plain, found = model(images), small(images)
    assert found.shape == plain.shape
    assert (found - plain).abs().max() <= 1e-4 * plain.abs().max().clamp(min=1e-6)
    return small


@pytest.mark.parametrize("engine", CPU_ENGINES)
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"stem_kind": "plain", "wired": True},
        {"stem_kind": "modules", "density": 0.15},
        {"norm": lambda nodes: nn.InstanceNorm2d(nodes, affine=True), "density": 0.2},
        {"norm": nn.InstanceNorm2d},
        {"norm": lambda nodes: nn.InstanceNorm2d(nodes, track_running_stats=True)},
        {"norm": lambda nodes: nn.BatchNorm2d(nodes, affine=False)},
        {"norm": lambda nodes: nn.Identity(), "stride": 3},
    ],
)
def test_logits_of_a_network_of_ones_own(engine, keys):
    assert_same_logits(network(1, **keys), engine)


@NEEDS_COMPILER
@given(
    seed=st.integers(0, 10_000),
    density=st.sampled_from([0.0, 0.1, 0.3, 1.0]),
    plain=st.booleans(),
    wired=st.booleans(),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
@settings(max_examples=40, deadline=None)
def test_the_native_engine_runs_the_whole_network(seed, density, plain, wired, size):
    model = network(seed, stem_kind="plain" if plain else "bias", density=density, wired=wired)
    for engine in ("native", "auto"):
        small = assert_same_logits(model, engine, torch.randn(2, 3, *size))
        assert isinstance(small, NativeNetwork)


@NEEDS_COMPILER
@pytest.mark.parametrize("keys", [{"stem_kind": "modules"}, {"norm": nn.InstanceNorm2d}, {"stride": 3}])
def test_other_networks_run_on_native_products(keys):
    small = assert_same_logits(network(2, **keys), "native")
    assert isinstance(small, CompactNetwork)
    assert engines_of(small) == "native"


def test_triton_in_both_precisions(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    model, images = network(3), torch.randn(1, 3, 9, 8)
    assert_same_logits(model, "triton", images)
    with torch.no_grad():
        halves, plain = compact(model, "triton", bf16=True)(images), model(images)
    assert 0 < (halves - plain).abs().max() <= 3e-2 * plain.abs().max()


def test_dead_nodes_are_left_out():
    model = network(4)
    model.second.edges.mask[:, 3] = False  # nobody reads this node of the second stage
    small = compact(model, "dense")
    live = [len(filters) for stage in small.stages for filters in stage.filters]
    assert live[2] < 7
    assert_same_logits(model, "dense")
    assert [int((stage.reached & stage.needed).sum()) for stage in liveness(model)] == [
        sum(live[:2]),
        sum(live[2:]),
    ]


@pytest.mark.parametrize("ending", ["onnx", "safetensors"])
def test_files(tmp_path, ending):
    pytest.importorskip("onnxruntime")
    from tests.models import edge_reader
    from tests.models.test_export import run_onnx

    model, path = network(5, density=0.5), tmp_path / f"out.{ending}"
    export(model, path, (3, 16, 16))
    images = torch.randn(2, 3, 16, 16)
    if ending == "onnx":
        found = run_onnx(path, images)
    else:
        found = torch.from_numpy(edge_reader.logits(path, images.numpy())).float()
    with torch.no_grad():
        torch.testing.assert_close(found, model(images), rtol=1e-4, atol=1e-4)


class Cyclic(WiredNetwork):
    """Twelve nodes in which edges may lead anywhere."""

    def __init__(self, run, norm=nn.BatchNorm2d):
        super().__init__()
        self.stem, self.edges, self.norm = stem("modules", 3), Masked(12, 12, 0.2), norm(12)
        self.filters, self.head = nn.Parameter(torch.randn(12, 1, 3, 3) / 3), nn.Linear(4, 5)
        self.run = run

    def update(self, states):
        sent = F.conv2d(F.relu(states), self.filters, padding=1, groups=12)
        return self.norm(F.conv2d(sent, self.edges()))

    def forward(self, images):
        states = F.pad(self.stem(images), (0, 0, 0, 0, 0, 9))
        return self.head(self.run(self.update, states)[:, -4:].amax((2, 3)))

    def structure(self):
        return CyclicStructure(
            self.stem, self.edges, self.filters, self.norm, num_inputs=3, num_outputs=4, run=self.run,
            pool=lambda maps: maps.amax((-2, -1)), classifier=Classifier(self.head.weight, self.head.bias),
        )  # fmt: skip

    def wired_layers(self):
        return [GraphLayer("edges", self.edges, 9)]


def heun(change, states, size):
    first = change(states)
    return size / 2 * (first + change(states + size * first))


def two_halves(change, states):
    states = states + change(states) / 2
    return states + change(states) / 2


RUNS = {"repeat": Repeat(3), "fixed": FixedSteps(heun, 3), "own": two_halves}


@pytest.mark.parametrize("engine", [*CPU_ENGINES, pytest.param("native", marks=NEEDS_COMPILER)])
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d, lambda _nodes: nn.Identity()])
def test_graphs_with_cycles(engine, run, norm):
    assert_same_logits(network(6, Cyclic, run=RUNS[run], norm=norm), engine)


def test_nodes_of_graphs_with_cycles():
    """In discrete time those that some update reads, in continuous time all."""
    model = network(7, Cyclic, run=Repeat(1))
    read = model.edges.mask[-4:].flatten(1).any(0)
    read[-4:] = True
    assert len(compact(model).stages[0].filters) == int(read.sum())
    assert len(compact(network(7, Cyclic, run=two_halves)).stages[0].filters) == 12


@pytest.mark.parametrize("run", RUNS)
def test_effective_edges_of_graphs_with_cycles(run):
    """All other edges carry zeros, or what nobody reads: whatever their weights, the logits are the same."""
    model = network(8, Cyclic, run=RUNS[run], norm=lambda _nodes: nn.Identity()).double()
    effective = effective_edges(model)
    in_use = model.edges.mask.flatten(1)
    assert not (effective & ~in_use).any()
    assert 0 < int(effective.sum()) < int(in_use.sum())
    images = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    with torch.no_grad():
        logits = model(images)
        model.edges.weight[~effective] *= -3
        torch.testing.assert_close(model(images), logits)
        model.edges.weight[effective] *= -3
        assert not torch.allclose(model(images), logits)


@pytest.mark.parametrize("run", ["repeat", "fixed", "own"])
@pytest.mark.parametrize("norm", [nn.BatchNorm2d, lambda nodes: nn.InstanceNorm2d(nodes, affine=True)])
def test_files_of_graphs_with_cycles(tmp_path, run, norm):
    pytest.importorskip("onnxruntime")
    from tests.models.test_export import run_onnx

    model = network(9, Cyclic, run=RUNS[run], norm=norm)
    if run == "own":
        with pytest.raises(WiringError, match="continuous time cannot be exported"):
            export(model, tmp_path / "out.onnx", (3, 16, 16))
        return
    export(model, tmp_path / "out.onnx", (3, 16, 16))
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(
            run_onnx(tmp_path / "out.onnx", images), model(images), rtol=1e-4, atol=1e-4
        )


class Doubled(Own):
    def forward(self, images):
        return 2 * super().forward(images)


class Described(Doubled):
    """Overrides both: twice the classifier."""

    def structure(self):
        described = super().structure()
        head = described.classifier
        return dataclasses.replace(described, classifier=Classifier(2 * head.weight, 2 * head.bias))


class Halving(nn.Module):
    def forward(self, images):
        return super().forward(images) / 2


class Mixed(Halving, Own):
    pass


@pytest.mark.parametrize("kind", [Doubled, Mixed])
def test_a_forward_pass_that_the_structure_does_not_describe(kind):
    model = network(0, kind)
    assert structure_of(model) is not None
    with pytest.raises(
        WiringError,
        match=rf"{kind.__name__} has no compact form: it overrides forward\(\), but not structure",
    ):
        compact(model)


def test_a_subclass_that_describes_its_own_forward_pass():
    assert_same_logits(network(0, Described), "auto")


def test_a_forward_method_of_one_network_alone():
    model = network()
    assert describes_forward(model)
    model.forward = lambda images: images
    assert not describes_forward(model)
    with pytest.raises(WiringError, match="it overrides forward"):
        compact(model)


def changed(**changes):
    return lambda structure: dataclasses.replace(structure, **changes)


def group(number, **changes):
    """Changes a group of the second stage."""

    def change(structure):
        first, second = structure.stages
        groups = list(second.groups)
        groups[number] = dataclasses.replace(groups[number], **changes)
        return dataclasses.replace(
            structure, stages=[first, dataclasses.replace(second, groups=tuple(groups))]
        )

    return change


def swapped(structure):
    return dataclasses.replace(structure, stages=structure.stages[::-1])


CONTRADICTIONS = [
    (changed(stages=[]), "a structure needs at least one stage"),
    (swapped, "first.edges: 6 nodes enter, but 9 leave the stage before"),
    (group(1, stride=2), "second.edges: group 1 has a stride of 2; only the first group may have one"),
    (group(1, rows=None), "second.edges: the first group has no rows"),
    (group(0, rows=slice(0, 7)), "second.edges: the first group has no rows"),
    (group(1, rows=slice(0, 4)), "group 1 has 5 columns, but other rows"),
    (group(1, rows=slice(12, 17)), r"has the rows slice\(12, 17, None\), the weight has 14"),
    (group(1, columns=slice(8, 13)), "group 1 begins at column 8, the one before ends at 7"),
    (group(0, filters=torch.zeros(7, 1, 5, 5)), r"needs filters \(7, 1, 3, 3\), got \(7, 1, 5, 5\)"),
    (group(1, norm=nn.BatchNorm2d(9)), "a norm of 9 nodes follows 5 nodes"),
    (group(1, norm=nn.GroupNorm(1, 5)), "cannot make a network with GroupNorm compact"),
    (
        group(1, norm=nn.BatchNorm2d(5, track_running_stats=False)),
        "whose batch norms keep no running statistics",
    ),
    (
        changed(classifier=Classifier(torch.zeros(4, 8))),
        "the classifier reads 8 features, but 9 nodes leave the network",
    ),
    (
        changed(classifier=Classifier(torch.zeros(4, 9, 3, 3))),
        r"edges are weights of 1×1 convolutions, got \(4, 9, 3, 3\)",
    ),
]


@pytest.mark.parametrize(("change", "message"), CONTRADICTIONS)
def test_structures_that_contradict_themselves(change, message):
    model = network()
    model.train()
    described = change(model.structure())
    model.structure = lambda: described
    model.forward = model.forward
    with pytest.raises(WiringError, match=message):
        compact(model)
    assert model.training


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_outputs": 13}, "a graph of 12 × 12 edges cannot have 3 inputs and 13 outputs"),
        ({"num_inputs": 0}, "cannot have 0 inputs"),
        ({"rule": Masked(12, 9)}, "a graph of 12 × 9 edges"),
        ({"filters": torch.zeros(11, 1, 3, 3)}, r"filters must be \(12, 1, 3, 3\), got \(11, 1, 3, 3\)"),
        ({"norm": nn.BatchNorm2d(3)}, "a norm of 3 nodes follows 12 nodes"),
        ({"classifier": Classifier(torch.zeros(5, 12))}, "the classifier reads 12 features, but 4 nodes"),
    ],
)
def test_graphs_with_cycles_that_contradict_themselves(changes, message):
    model = network(0, Cyclic, run=Repeat(2))
    described = dataclasses.replace(model.structure(), **changes)
    model.structure = lambda: described
    with pytest.raises(WiringError, match=message):
        compact(model)


class Folding(nn.Module):
    def __init__(self, pairs):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(144, 5), nn.BatchNorm1d(5))
        self.pairs = pairs

    def forward(self, images):
        return self.head(self.body(images))

    def structure(self):
        return FoldableNorms(self.pairs)


def test_norms_of_a_network_without_wiring():
    model = network(0, Folding, pairs=[("body.0", "body.1"), ("head.0", "head.1")])
    before = copy.deepcopy(model.state_dict())
    small = assert_same_logits(model, "auto", torch.randn(2, 3, 8, 8))
    assert not any(isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) for module in small.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert isinstance(model.body[1], nn.BatchNorm2d)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("body.0", "body.2"), "body.2 cannot be folded into body.0: they are Conv2d and ReLU"),
        (("body.7", "body.1"), "Folding: .*7"),
    ],
)
def test_norms_that_cannot_be_folded(pair, message):
    with pytest.raises(WiringError, match=message):
        compact(network(0, Folding, pairs=[pair]))


def test_something_else_than_a_structure():
    with pytest.raises(
        WiringError, match=r"Own.structure\(\) must return one of the structures .*, got list"
    ):
        model = network()
        model.structure = list
        compact(model)


class Convolution(nn.Module):
    """Has a part called `stages`, as many networks do, and tells nothing of itself."""

    def __init__(self):
        super().__init__()
        self.stages, self.structure = nn.Sequential(nn.Conv2d(3, 2, 1)), nn.Identity()

    def forward(self, images):
        return self.stages(images).mean((2, 3))


def test_defaults():
    model = Convolution()
    assert (stages(model), liveness(model), wired_layers(model)) == ([], [], [])
    assert (image_size(model), effective_edges(model), observations(model)) == (None, None, {})
    assert parts_to_compile(model) == [model]
    with pytest.raises(WiringError, match="Convolution has no compact form; a network has one if its method"):
        compact(model)
    subclass = WiredNetwork()
    assert (subclass.stages(), subclass.liveness(), subclass.wired_layers()) == ([], [], [])
    assert subclass.complexity() is None and subclass.structure() is None
    assert subclass.effective_edges() is None and subclass.parts_to_compile() == [subclass]


class OfStages(nn.Module):
    """Lists its stage, and no structure."""

    def __init__(self):
        super().__init__()
        self.block = Block(6, 8, 7, 1, nn.BatchNorm2d, 0.4)

    def stages(self):
        return [self.block.stage("block")]

    def observations(self):
        return {"seen": 3}


def test_a_network_that_knows_some_of_it():
    torch.manual_seed(0)
    model = OfStages()
    (live,) = liveness(model)
    assert torch.equal(effective_edges(model), live.edges)
    assert observations(model) == {"seen": 3}
    assert len(liveness(network())) == len(stages(network())) == 2
    assert effective_edges(network()) is None
