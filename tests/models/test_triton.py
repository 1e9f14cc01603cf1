"""The Triton engine by Triton's interpreter: the logits of other engines, on the CPU."""

import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genutil.errors import UserError
from models.fast_eval import compact
from models.fast_eval.engines.triton import FastestProduct, TritonProduct
from tests.models.test_fast_eval import WIRINGS, build, randomise
from tests.models.test_native import assert_close, small_mobilenet

pytest.importorskip("triton")
KERNEL = "models.fast_eval.engines.gather"


@pytest.fixture
def interpreted(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.delitem(sys.modules, KERNEL, raising=False)
    yield
    sys.modules.pop(KERNEL, None)


@given(
    kind=WIRINGS,
    pixels=st.integers(1, 600),
    images=st.integers(1, 3),
    whole=st.booleans(),
    rectified=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_fused_products(interpreted, kind, pixels, images, whole, rectified, seed):
    """Edges, a bias by target or by pixel, and ReLU, in one pass."""
    torch.manual_seed(seed)
    weight = torch.randn(5, 7) * (torch.rand(5, 7) < {"some": 0.3, "few": 0.05, "all": 1}.get(kind, 0.2))
    maps = torch.randn(7, images, pixels)
    bias = torch.randn(5, 1, pixels if whole else 1, 1)
    wanted = torch.einsum("ts,sip->tip", weight, maps) + bias.flatten(2)
    product = TritonProduct(weight)
    found = product.fused(maps.flatten(1), bias, rectified).view(5, images, pixels)
    torch.testing.assert_close(found, wanted.relu() if rectified else wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(product(maps.flatten(1)), weight @ maps.flatten(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kinds", [("some",) * 4, ("few", "columns", "some", "all"), ("none",) * 4])
def test_logits_of_a_mobilenet(interpreted, kinds):
    model = small_mobilenet(5, kinds, image_size=32)
    images = torch.randn(2, 3, 13, 9)
    with torch.no_grad():
        assert_close(compact(model, "triton")(images), model(images))


@pytest.mark.parametrize("app", ["static_dnw", "discrete_time_dnw"])
def test_logits_of_tiny_classifiers(interpreted, app):
    """Their norms are not folded, so that nothing is fused."""
    model = build(
        f"small_scale/{app}.yml", graph="random", dim=40, downsample_dim=8, feature_dim=12, layers=2
    )
    randomise(model, ["some"], 0)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert_close(compact(model.eval(), "triton")(images), model(images))


def test_the_fastest_product_is_measured_once_for_each_size(interpreted, monkeypatch):
    weight = torch.randn(4, 6)
    measured = []

    def milliseconds(run, product):
        pixels = run(product).shape[1]
        measured.append(pixels)
        return 1.0 if isinstance(product, TritonProduct) == (pixels > 20) else 2.0

    monkeypatch.setattr("models.fast_eval.engines.triton._milliseconds", milliseconds)
    fastest = FastestProduct(torch.nn.Linear(6, 4, bias=False), TritonProduct(weight))
    monkeypatch.setattr(fastest.candidates[0], "forward", lambda sources: weight @ sources)
    for pixels in (12, 24, 12, 24):
        maps, bias = torch.randn(6, pixels), torch.randn(4, 1, 2, 3)
        wanted = weight @ maps
        torch.testing.assert_close(fastest(maps), wanted)
        by_pixel = wanted + bias.flatten(1).repeat(1, pixels // 6)
        torch.testing.assert_close(fastest.fused(maps, bias, rectified=True), by_pixel.relu())
        one = torch.randn(4, 1, 1, 1)
        torch.testing.assert_close(fastest.fused(maps, one, rectified=False), wanted + one.flatten(1))
    assert measured == [12, 12, 24, 24]


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(
        UserError, match=r"engine triton runs on a GPU, and the network is on cpu. Run with --gpus 0"
    ):
        compact(small_mobilenet(), "triton")
