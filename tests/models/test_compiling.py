"""Every experiment's network compiles as one graph, and gives the same logits and gradients."""

import pytest
import torch

from genutil.config import load_config
from genutil.exceptions import ConfigError
from models import build_model
from models.compiling import compile_errors_as_config_errors, compile_network
from tests.conftest import ROOT, SMALL_GRAPH, SMALL_STAGES

APPS = sorted(str(path.relative_to(ROOT / "apps")) for path in (ROOT / "apps").glob("*_scale/*.yml"))
IN_EVERY_RUN = {
    "small_scale/static_dnw.yml",
    "small_scale/discrete_time_random_graph.yml",
    "small_scale/continuous_time_dnw.yml",
    "medium_scale/mobilenetv1_td_x225.yml",
    "large_scale/mobilenetv1_dnw_small_x225.yml",
}
"""One of each kind of graph; the others are compiled in `make test-all`."""
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def fresh_compiler(monkeypatch):
    """And MobileNet graphs of two stages: each more is traced as the second is."""
    monkeypatch.setattr("models.graphs.mobilenetv1like.STAGES", SMALL_STAGES[:2])
    torch.compiler.reset()


def network_of(app):
    torch.manual_seed(0)
    config = load_config(ROOT / "apps" / app)
    small = {**SMALL_GRAPH, "image_size": 32, "prune_rate": config.prune_rate, "output_size": 10}
    return build_model(load_config(ROOT / "apps" / app, {**small, "topk": [1]}))


def outcome(network, images):
    """Logits in training and gradients, then logits in evaluation."""
    torch.manual_seed(1)  # targeted dropout draws
    network.train()
    logits = network(images)
    gradients = torch.autograd.grad(logits.square().sum(), list(network.parameters()))
    network.eval()
    with torch.no_grad():
        return [logits.detach(), *gradients, network(images)]


def assert_same(found, expected, tolerance):
    """Within a part of each tensor's largest entry; some gradients are zero but for rounding."""
    largest = max(plain.abs().max() for plain in expected)
    for mine, plain in zip(found, expected, strict=True):
        scale = max(plain.abs().max(), 1e-3 * largest)
        assert (mine - plain).abs().max() <= tolerance * scale


@pytest.mark.parametrize(
    "app", [pytest.param(app, marks=() if app in IN_EVERY_RUN else pytest.mark.slow) for app in APPS]
)
def test_every_experiment_compiles_in_one_piece(app):
    """fullgraph: a break in the graph would be an error. In float64, so that rounding hides nothing."""
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    expected = outcome(network_of(app).double(), images)
    network = network_of(app).double()
    names = list(network.state_dict())
    compile_network(network, CPU, backend="aot_eager")
    assert list(network.state_dict()) == names
    assert_same(outcome(network, images), expected, 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("app", ["small_scale/static_dnw.yml", "medium_scale/mobilenetv1_dnw_x225.yml"])
def test_compiled_code_is_within_rounding(app):
    images = torch.randn(3, 3, 32, 32)
    expected = outcome(network_of(app), images)
    network = network_of(app)
    compile_network(network, CPU)
    assert_same(outcome(network, images), expected, 1e-3)


def test_a_missing_compiler_is_told_before_training(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=r"compile: needs a C\+\+ compiler on the CPU"):
        compile_network(network_of("small_scale/static_dnw.yml"), CPU)


class Branching(torch.nn.Module):
    """Decides by the values of its maps, which ends a compiled piece."""

    def forward(self, maps):
        return maps + 1 if maps.sum().item() > 0 else maps


class Divided(Branching):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(2, 2)

    def forward(self, maps):
        return super().forward(self.first(maps))

    def parts_to_compile(self):
        return [self.first]


def test_a_network_that_is_no_one_piece_is_told():
    network = Branching()
    compile_network(network, CPU, backend="aot_eager")
    refusal = pytest.raises(ConfigError, match="compile: the network cannot be compiled as one graph")
    with refusal, compile_errors_as_config_errors():
        network(torch.ones(2))
    parts = Divided()
    compile_network(parts, CPU, backend="aot_eager")
    with compile_errors_as_config_errors():
        assert parts(torch.ones(2)).shape == (2,)
    with pytest.raises(KeyError), compile_errors_as_config_errors():
        raise KeyError
