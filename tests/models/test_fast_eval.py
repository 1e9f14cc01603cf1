"""Compact networks have the logits of the plain ones, whatever died."""

import builtins
import importlib

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from torch import nn

from models.graphs import mobilenetv1like
from tests.helpers.engines import CPU_ENGINES, INSTALLED, NEEDS_DGL
from tests.helpers.equality import assert_close
from tests.helpers.examples import examples
from tests.helpers.random_wirings import STAGES, WIRINGS, build, randomise
from wirings.compacting import compact, engines_of
from wirings.engines import dgl, find_engine
from wirings.errors import WiringError


def assert_same_logits(model, images, *engines):
    """All engines on one network: building and running it takes most of the time."""
    model.eval()
    with torch.no_grad():
        plain = model(images)
        for engine in engines:
            assert_close(compact(model, engine)(images), plain)


@given(
    kinds=st.lists(WIRINGS, min_size=4, max_size=4),
    seed=st.integers(0, 10_000),
    small=st.booleans(),
    images=st.integers(1, 3),
    size=st.tuples(st.integers(5, 20), st.integers(5, 20)),
)
@examples(50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_logits_of_random_wirings(monkeypatch, kinds, seed, small, images, size):
    monkeypatch.setattr(mobilenetv1like, "STAGES", STAGES)
    model = build("medium_scale/mobilenetv1_random_graph_x225.yml", small=small)
    randomise(model, kinds, seed)
    generator = torch.Generator().manual_seed(seed)
    assert_same_logits(model, torch.randn(images, 3, *size, generator=generator), *INSTALLED)


@given(kind=WIRINGS, seed=st.integers(0, 10_000))
@examples(15)
def test_logits_of_random_static_graphs(kind, seed):
    sizes = {"dim": 80, "downsample_dim": 8, "feature_dim": 10, "layers": 4, "image_size": 16}
    model = build("small_scale/static_random_graph.yml", **sizes)
    randomise(model, [kind], seed)
    assert_same_logits(model, torch.randn(2, 3, 16, 16), *INSTALLED)


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_an_empty_batch(monkeypatch, engine):
    monkeypatch.setattr(mobilenetv1like, "STAGES", STAGES)
    model = build("medium_scale/mobilenetv1_random_graph_x225.yml")
    assert compact(model, engine)(torch.empty(0, 3, 32, 32)).shape == (0, 10)


RULES = ["dnw", "random", "complete", "dnw_no_update", "fine_tune", "td", "reg_td"]


@pytest.mark.parametrize("graph", RULES)
def test_every_edge_rule(graph, monkeypatch):
    monkeypatch.setattr(mobilenetv1like, "STAGES", STAGES)
    rho = {"rho": 0.5} if "td" in graph else {}
    model = build("medium_scale/mobilenetv1_dnw_x225.yml", graph=graph, **rho)
    for layer in model.wired_layers():
        if hasattr(layer.rule, "freeze_wiring"):
            layer.rule.freeze_wiring()
    assert_same_logits(model.train(), torch.randn(2, 3, 32, 32), "dense")
    model.train()
    compact(model)
    assert model.training


def test_thousands_of_dead_nodes():
    """The full network, its source columns scaled so that most nodes die, as in trained wirings."""
    model = build("medium_scale/mobilenetv1_dnw_x225.yml")
    generator = torch.Generator().manual_seed(0)
    for layer in model.wired_layers():
        scale = torch.randn(1, layer.rule.weight.shape[1], 1, 1, generator=generator)
        layer.rule.weight.data.mul_((0.15 * scale).exp())
    live = sum(int((found.reached & found.needed).sum()) for found in model.liveness())
    assert live < 4960 - 3000
    assert_same_logits(model, torch.randn(2, 3, 32, 32), *INSTALLED)


def test_constants_are_folded_with_their_border():
    """A node without inputs sends ReLU of its norm's shift, filtered: other at the border than inside."""
    model = build("medium_scale/mobilenetv1_random_graph_x225.yml")
    randomise(model, ["some", "some", "some", "few", "few"], 3)
    stage = model.layers[3]
    stage.graph.mask[:512, :] = 0  # the first hidden group gets nothing; what it sends is constant
    stage.graph.mask[512:, 256:768] = (torch.rand(2560, 512, 1, 1) < 0.01).float()
    found = model.liveness()[3]
    assert int((~found.reached & found.needed).sum()) > 100
    for size in (32, 41):
        assert_same_logits(model, torch.randn(2, 3, size, size), "dense")


def test_compact_networks_only_evaluate():
    small = compact(build("small_scale/static_dnw.yml"))
    small.eval()
    with pytest.raises(ValueError, match="for evaluation only"):
        small.train()


@pytest.mark.parametrize("kind", ["some", "few", "columns", "none"])
@pytest.mark.parametrize("setting", ["discrete", "continuous"])
def test_logits_of_graphs_with_cycles(kind, setting):
    sizes = {"dim": 60, "downsample_dim": 8, "feature_dim": 10, "image_size": 16}
    model = build(f"small_scale/{setting}_time_random_graph.yml", **sizes)
    randomise(model, [kind], 5)
    assert_same_logits(model, torch.randn(2, 3, 16, 16), *INSTALLED)


def test_unread_nodes_of_a_discrete_graph_are_left_out():
    model = build(
        "small_scale/discrete_time_random_graph.yml", dim=60, downsample_dim=8, feature_dim=10, layers=2
    )
    model.graph.mask.zero_()
    model.graph.mask[50:, 20] = model.graph.mask[20, 3] = model.graph.mask[3, 30] = 1
    small = compact(model)
    assert len(small.stages[0].filters) == 10 + 2  # node 30 would need a third step
    assert_same_logits(model, torch.randn(2, 3, 32, 32), "dense")


def test_norms_of_a_dense_network_are_folded(caplog):
    model = build("medium_scale/mobilenetv1_x25.yml")
    model(torch.randn(16, 3, 32, 32))
    assert_same_logits(model, torch.randn(3, 3, 32, 32), "auto")
    assert not any(isinstance(module, nn.BatchNorm2d) for module in compact(model).modules())
    assert isinstance(model.bn1, nn.BatchNorm2d)
    assert "no effect" not in caplog.text
    compact(model, "csr")
    assert "engine csr has no effect on a network without wiring" in caplog.text


def test_what_has_no_compact_form_says_so():
    with pytest.raises(
        ValueError, match=r"Linear has no compact form; a network has one if its method structure\(\)"
    ):
        compact(nn.Linear(1, 1))
    with pytest.raises(
        ValueError,
        match=r"engine must be one of auto, dense, csr, native, triton, dgl, got dens; did you mean",
    ):
        find_engine("dens")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("dgl", name="dgl"), r"needs the Deep Graph Library: pip install dgl==1\.1\.3"),
        (ModuleNotFoundError("psutil", name="psutil"), "DGL is installed, but it needs the package psutil"),
        (
            FileNotFoundError("libgraphbolt.so"),
            r"cannot be imported \(libgraphbolt\.so\); versions after 1\.1\.3",
        ),
    ],
)
def test_dgl_that_cannot_be_imported(monkeypatch, error, message):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name == "dgl":
            raise error
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(WiringError, match=message):
        compact(build("small_scale/static_dnw.yml"), "dgl")


@NEEDS_DGL
def test_dgl_without_cuda_names_its_wheels():
    product = dgl.DGLProduct(torch.eye(3))

    class CPUOnly:
        device = torch.device("cpu")

        def to(self, _device):
            raise importlib.import_module("dgl").DGLError("Device API cuda is not enabled")

    product._graph = CPUOnly()
    with pytest.raises(
        WiringError, match=r"is built for the CPU.*--gpus \(no number\).*torch up to 2\.4: https"
    ):
        product._move(torch.device("cuda"))


def test_networks_with_a_forward_pass_of_their_own_are_refused():
    class Doubled(mobilenetv1like.MobileNetV1Like):
        def forward(self, images):
            return 2 * super().forward(images)

    model = build("medium_scale/mobilenetv1_dnw_x225.yml")
    model.__class__ = Doubled
    with pytest.raises(ValueError, match="Doubled has no compact form"):
        compact(model)


def test_modes_of_all_modules_stay():
    model = build("small_scale/static_dnw.yml").train()
    model.downsample[1].eval()
    compact(model)
    assert model.training
    assert not model.downsample[1].training


@pytest.mark.parametrize("engine", ["native", "dense", "csr"])
def test_reports_name_the_engine(engine, monkeypatch):
    monkeypatch.setattr(mobilenetv1like, "STAGES", STAGES)
    model = build("large_scale/mobilenetv1_dnw_x225.yml", graph="random", output_size=7)
    randomise(model, ["some"] * 3, 0)
    assert engines_of(compact(model, engine)) == engine


def test_reports_name_what_auto_took():
    assert engines_of(compact(build("small_scale/static_dnw.yml"), "auto")) == "csr"
    assert engines_of(compact(build("medium_scale/mobilenetv1_x25.yml"), "auto")) == "dense"
