"""The Triton engine by Triton's interpreter: the logits of other engines, on the CPU."""

import sys

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from benchmarks.wirings import make_network
from tests.conftest import ROOT
from tests.helpers.equality import assert_close
from tests.helpers.examples import examples
from tests.helpers.random_wirings import WIRINGS, build, randomise, small_mobilenet
from tests.models.interpreted import interpreted_kernels
from wirings.compacting import compact, plan_network
from wirings.engines import triton as engine
from wirings.engines import tuning
from wirings.engines.dense import DenseProduct
from wirings.engines.slices import SLICE, slice_edges
from wirings.engines.triton import PRODUCTS, SENDING, FastestProduct, TritonProduct
from wirings.errors import WiringError
from wirings.layout import depthwise

pytest.importorskip("triton")
KERNEL = "wirings.engines.gather"
interpreted = interpreted_kernels(KERNEL)


@given(
    kind=WIRINGS,
    pixels=st.integers(1, 600),
    images=st.integers(1, 3),
    whole=st.booleans(),
    rectified=st.booleans(),
    seed=st.integers(0, 99),
)
@examples(25, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


@given(
    kind=WIRINGS,
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    seed=st.integers(0, 99),
)
@examples(60)
def test_slices_hold_all_edges(kind, size, dtype, seed):
    """Targets with most edges come first, a target's sources rise, and empty places have no source."""
    torch.manual_seed(seed)
    part = {"some": 0.3, "few": 0.05, "all": 1, "none": 0}.get(kind, 0.2)
    weight = (torch.randn(size) * (torch.rand(size) < part)).to(dtype)
    order, counts, offsets, columns, weights = slice_edges(weight)
    assert len(order) == len(counts) == SLICE * len(offsets)
    assert counts.tolist() == sorted(counts.tolist(), reverse=True)
    assert weights.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    found = torch.zeros(size, dtype=weights.dtype)
    used = torch.zeros(len(columns), dtype=torch.bool)
    for place, (target, count) in enumerate(zip(order.tolist(), counts.tolist(), strict=True)):
        at = offsets[place // SLICE].item() + torch.arange(count) * SLICE + place % SLICE
        assert columns[at].tolist() == sorted(columns[at].tolist())
        found[target, columns[at].long()] = weights[at]
        used[at] = True
    assert torch.equal(found, weight.to(weights.dtype))
    assert (columns[~used] == -1).all()
    assert not weights[~used].any()


def sent_by_torch(weight, sources, bias, filters, stride):
    """What send should give, with every map rounded to the type of the sources."""
    exact = torch.einsum("ts,sihw->tihw", weight.double(), sources.double()) + bias
    return depthwise(exact.relu().to(sources.dtype).double(), filters.double(), stride)


TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2**-7}
"""bfloat16: one in the last place of 8 bits, where a sum in 32 bits lies at the border of two numbers."""


@pytest.mark.parametrize(
    ("size", "images", "stride", "whole", "dtype"),
    [
        ((6, 5), 1, 1, True, torch.float32),
        ((9, 4), 1, 2, False, torch.bfloat16),
        pytest.param((1, 1), 2, 2, True, torch.float32, marks=pytest.mark.slow),
    ],
)
def test_sent_maps(interpreted, size, images, stride, whole, dtype):
    """Product, bias, ReLU and filters: all tilings give the same bits, near those of an exact sum."""
    torch.manual_seed(0)
    weight = torch.randn(9, 7) * (torch.rand(9, 7) < 0.3)
    sources = torch.randn(7, images, *size).to(dtype)
    bias = torch.randn(9, 1, *(size if whole else (1, 1)))
    filters = torch.randn(9, 1, 3, 3)
    wanted = sent_by_torch(weight, sources, bias, filters, stride)
    product, results = TritonProduct(weight), []
    for tiling in SENDING:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine, "SENDING", (tiling,))
            result = torch.full(wanted.shape, torch.nan, dtype=dtype)
            product.send(sources, bias, filters, stride, result)
        results.append(result)
    torch.testing.assert_close(
        results[0].double(), wanted, rtol=TOLERANCES[dtype], atol=10 * TOLERANCES[dtype]
    )
    for result in results[1:]:
        assert torch.equal(result, results[0])


def test_all_tilings_of_products_give_the_same_bits(interpreted, monkeypatch):
    torch.manual_seed(0)
    weight, maps = torch.randn(21, 30) * (torch.rand(21, 30) < 0.4), torch.randn(30, 150)
    results = []
    for tiling in PRODUCTS:
        monkeypatch.setattr(engine, "PRODUCTS", (tiling,))
        results.append(TritonProduct(weight)(maps))
    assert all(torch.equal(result, results[0]) for result in results)


def test_what_fills_a_slice_up_reads_nothing(interpreted):
    """An infinite map reaches the targets of its edges alone, a NaN passes ReLU."""
    weight = torch.zeros(3, 4)
    weight[0] = 1
    weight[1, 2] = 1
    maps = torch.ones(4, 5)
    maps[0], maps[1] = torch.inf, torch.nan
    found = TritonProduct(weight).fused(maps, torch.zeros(3, 1, 1, 1), rectified=True)
    assert found[0].isnan().all()
    assert torch.equal(found[1:], torch.tensor([[1.0] * 5, [0.0] * 5]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("layout", "stride", "bias_size"),
    [
        (torch.contiguous_format, 1, None),
        (torch.contiguous_format, 2, (6, 5)),
        (torch.channels_last, 1, (1, 1)),
        (torch.channels_last, 2, None),
    ],
)
def test_filters_of_maps_in_any_layout(interpreted, dtype, layout, stride, bias_size):
    """As they leave the stem, in float32: images first, or channels last. With and without a bias."""
    torch.manual_seed(0)
    product, filters = TritonProduct(torch.ones(1, 1)), torch.randn(3, 1, 3, 3)
    maps = torch.randn(2, 3, 6, 5).contiguous(memory_format=layout).transpose(0, 1)
    bias = None if bias_size is None else torch.randn(3, 1, *bias_size)
    wanted = depthwise((maps if bias is None else maps + bias).relu(), filters, stride)
    result = torch.empty(wanted.shape, dtype=dtype)
    product.filter(maps, bias, filters, stride, result)
    tolerance = TOLERANCES[dtype]
    torch.testing.assert_close(result.float(), wanted, rtol=tolerance, atol=10 * tolerance)


def test_too_many_pixels_are_refused(interpreted):
    maps = torch.ones(1, 1, 1, 1).expand(1, 2**15, 2**8, 2**8)
    with pytest.raises(
        ValueError, match=r"fewer than 2\^31 pixels of a node, got 2,147,483,648; evaluate smaller"
    ):
        TritonProduct(torch.ones(1, 1)).filter(maps, None, torch.ones(1, 1, 3, 3), 1, torch.ones(1, 1, 1, 1))


@pytest.mark.parametrize("kinds", [("some",) * 4, ("few", "columns", "some", "all"), ("none",) * 4])
def test_logits_of_a_mobilenet(interpreted, kinds):
    model = small_mobilenet(5, kinds, image_size=32)
    images = torch.randn(2, 3, 13, 9)
    with torch.no_grad():
        assert_close(compact(model, "triton")(images), model(images))


def test_each_layer_is_one_kernel(interpreted, monkeypatch):
    """Filters with stride 2, at the border of two stages, too. The last product sends to no filter."""
    launched = []
    kernels = engine.load_kernels()

    class Recorder:
        def __init__(self, name):
            self.name, self.kernel = name, getattr(kernels, name)

        def __getitem__(self, grid):
            launched.append(self.name)
            return self.kernel[grid]

    for name in ("gather_product", "gather_filter", "filter_maps"):
        monkeypatch.setattr(kernels, name, Recorder(name))
    network = compact(small_mobilenet(5, image_size=32), "triton")
    network(torch.randn(1, 3, 4, 3))
    products = sum(len(stage.products) for stage in network.stages)
    assert launched == ["filter_maps", *["gather_filter"] * (products - 1), "gather_product"]


def test_maps_in_16_bits(interpreted):
    """Logits stay in float32 and lose some accuracy: each map is rounded to 8 bits."""
    model = small_mobilenet(5, ("some",) * 4, image_size=32)
    images = torch.randn(2, 3, 9, 7)
    exact, network = compact(model, "dense")(images), compact(model, "triton", bf16=True)
    for stage in network.stages:
        assert stage.allocate(torch.empty(3, 2, 5, 5)).dtype == torch.bfloat16
    halves = network(images)
    assert halves.dtype == torch.float32
    assert 0 < (halves - exact).abs().max() <= 2e-2 * exact.abs().max()
    # Where engine auto finds no Triton on a GPU.
    dense = plan_network(model.structure()).network(DenseProduct, torch.bfloat16)
    assert 0 < (dense(images) - exact).abs().max() <= 3e-2 * exact.abs().max()


@pytest.mark.parametrize("way", range(3))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_way_to_send(interpreted, monkeypatch, way, dtype):
    """A dense product with filters of torch or Triton, or edge by edge."""
    torch.manual_seed(0)
    weight = torch.randn(4, 6).to(dtype).float()
    monkeypatch.setattr(engine, "can_measure", lambda _: True)
    monkeypatch.setattr(engine, "fastest", lambda ways, run, budget=0: ways[way % len(ways)])
    product = FastestProduct(DenseProduct(weight), TritonProduct(weight))
    sources, filters = torch.randn(6, 2, 5, 4).to(dtype), torch.randn(4, 1, 3, 3)
    for bias in (torch.randn(4, 1, 1, 1), torch.randn(4, 1, 5, 4)):
        wanted = sent_by_torch(weight, sources, bias, filters, 2)
        result = torch.empty(wanted.shape, dtype=dtype)
        product.send(sources, bias, filters, 2, result)
        tolerance = TOLERANCES[dtype]
        # A dense product is rounded once more, and torch's filters once on the way.
        torch.testing.assert_close(result.double(), wanted, rtol=4 * tolerance, atol=20 * tolerance)
    maps = torch.randn(4, 2, 5, 4)
    result = torch.empty(4, 2, 3, 2, dtype=dtype)
    product.filter(maps, None, filters, 2, result)
    torch.testing.assert_close(
        result, depthwise(maps.relu(), filters, 2).to(dtype), rtol=tolerance, atol=20 * tolerance
    )
    assert set(product._fastest_options.values()) == {way, way % 2}


@pytest.fixture
def times(monkeypatch):
    """Milliseconds of each way, as measured; calling a way gives its name."""
    found = {}
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(tuning, "milliseconds", lambda run: found[run()])
    return found


def test_the_fastest_way_is_taken(times):
    times.update(slow=3.0, fast=1.0, middle=2.0)
    assert tuning.fastest(list(times), lambda way: way) == "fast"


def test_a_way_that_cannot_run_is_left_out(times, caplog):
    times.update(slow=3.0, middle=2.0)

    def run(way):
        if way not in times:
            raise RuntimeError(f"out of resources: {way}")
        return way

    assert tuning.fastest(["slow", "large", "middle"], run) == "middle"
    assert "a kernel that cannot run here is skipped: out of resources: large" in caplog.text
    with pytest.raises(RuntimeError, match="out of resources: large"):
        tuning.fastest(["large", "larger"], run)


def test_nothing_is_measured_beyond_the_budget(times, monkeypatch):
    """But the first way always is."""
    times.update(slow=3.0, fast=1.0)
    clock = iter(range(100))
    monkeypatch.setattr(tuning.time, "perf_counter", lambda: next(clock))
    assert tuning.fastest(list(times), lambda way: way, budget=0.5) == "slow"
    assert tuning.fastest(list(times), lambda way: way, budget=2.0) == "fast"


def test_a_choice_is_made_once_for_a_size_and_never_during_capture(interpreted, monkeypatch):
    chosen = []

    def fastest(ways, run):
        chosen.append(ways)
        return ways[-1]

    monkeypatch.setattr(engine, "fastest", fastest)
    product, maps = TritonProduct(torch.randn(3, 4)), torch.randn(4, 50)
    monkeypatch.setattr(engine, "can_measure", lambda _: False)
    product(maps)
    assert not chosen
    monkeypatch.setattr(engine, "can_measure", lambda _: True)
    for pixels in (50, 50, 40, 50):
        product(maps[:, :pixels])
    assert chosen == [PRODUCTS, PRODUCTS]
    product.to(torch.float32)  # moved or cast: chosen again
    product(maps)
    assert len(chosen) == 3


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

    monkeypatch.setattr("wirings.engines.triton._milliseconds", milliseconds)
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


@pytest.mark.skipif(torch.__version__ < "2.7", reason="Triton 3.2 reads TRITON_INTERPRET once")
def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.delitem(sys.modules, KERNEL, raising=False)  # another test's, for the interpreter
    with pytest.raises(
        WiringError, match=r"engine triton runs on a GPU, and the network is on cpu. Run with --gpus 0"
    ):
        compact(small_mobilenet(), "triton")


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module")
def on_a_gpu():
    """DNW ×0.225 with dead nodes, at 224 px."""
    return make_network(str(ROOT / "apps/large_scale/mobilenetv1_dnw_x225.yml"), "trained").cuda()


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-4), (True, 2e-2)])
@pytest.mark.parametrize("name", ["triton", "auto"])
@pytest.mark.parametrize("images", [1, 8, 64])
def test_logits_on_a_gpu(on_a_gpu, monkeypatch, images, name, bf16, tolerance):
    """To 1e-4 of the largest; with maps of 16 bits to 2e-2, as rounding alone makes up to 8e-3."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    pixels = torch.randn(images, 3, 224, 224, device="cuda")
    with torch.no_grad():
        wanted = on_a_gpu(pixels)
    network = compact(on_a_gpu, name, bf16=bf16)
    for _ in range(2):  # measured, then chosen
        found = network(pixels)
        assert (found - wanted).abs().max() <= tolerance * wanted.abs().max()


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [112, 14, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_all_tilings_on_a_gpu(monkeypatch, size, stride, dtype):
    """The bits of the first one, of which the product is near an exact one."""
    torch.manual_seed(0)
    weight = torch.randn(85, 60) * (torch.rand(85, 60) < 0.2)
    product = TritonProduct(weight.cuda())
    sources = torch.randn(60, 5, size, size, device="cuda").to(dtype)
    bias, filters = torch.randn(85, 1, size, size, device="cuda"), torch.randn(85, 1, 3, 3, device="cuda")
    wanted = sent_by_torch(weight.cuda(), sources, bias, filters, stride)
    results = []
    for tiling in SENDING:
        monkeypatch.setattr(engine, "SENDING", (tiling,))
        product.reset_cache()
        result = torch.full(wanted.shape, torch.nan, dtype=dtype, device="cuda")
        product.send(sources, bias, filters, stride, result)
        results.append(result)
    tolerance = TOLERANCES[dtype]
    torch.testing.assert_close(results[0].double(), wanted, rtol=tolerance, atol=20 * tolerance)
    for result in results[1:]:
        assert torch.equal(result, results[0])


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", ["triton", "auto"])
def test_a_whole_network_in_a_cuda_graph(on_a_gpu, name, bf16):
    """After the first calls nothing waits for the device, and a graph takes other images, too."""
    network = compact(on_a_gpu, name, bf16=bf16)
    images = torch.randn(8, 3, 224, 224, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            network(images)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            network(images)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = network(images)
    for _ in range(2):
        images.copy_(torch.randn_like(images))
        graph.replay()
        assert torch.equal(logits, network(images))
