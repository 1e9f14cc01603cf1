"""Networks of one's own that describe their structure: fast evaluation, export, defaults."""

import copy
import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.helpers.engines import CPU_ENGINES, NEEDS_COMPILER
from tests.helpers.examples import examples
from tests.helpers.exported_files import needs_onnx, run_onnx
from tests.wirings.own_networks import Block, Own, assert_same_logits, network
from wirings.compact_network import CompactNetwork
from wirings.compacting import compact, engines_of
from wirings.errors import WiringError
from wirings.exporting import export
from wirings.native import NativeNetwork
from wirings.structure import (
    Classifier,
    FoldableNorms,
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
@examples(40)
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


@needs_onnx
@pytest.mark.parametrize("ending", ["onnx", "safetensors"])
def test_files(tmp_path, ending):
    from tests.models import edge_reader

    model, path = network(5, density=0.5), tmp_path / f"out.{ending}"
    export(model, path, (3, 16, 16))
    images = torch.randn(2, 3, 16, 16)
    if ending == "onnx":
        found = run_onnx(path, images)
    else:
        found = torch.from_numpy(edge_reader.logits(path, images.numpy())).float()
    with torch.no_grad():
        torch.testing.assert_close(found, model(images), rtol=1e-4, atol=1e-4)


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
    (group(1, rows=None), "second.edges: the first group must have no rows"),
    (group(0, rows=slice(0, 7)), "second.edges: the first group must have no rows"),
    (group(1, rows=slice(0, 4)), "group 1 has 5 columns, but other rows"),
    (group(1, rows=slice(12, 17)), r"has the rows slice\(12, 17, None\), the weight has 14"),
    (group(1, columns=slice(8, 13)), "group 1 begins at column 8, the previous one ends at 7"),
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
    """Has a part called `stages`, as many networks do, and does not describe itself."""

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
