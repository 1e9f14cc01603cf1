"""The native engine: the logits of other engines for every size, number of images and of threads."""

import os
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.engines import NEEDS_COMPILER
from tests.helpers.equality import assert_close
from tests.helpers.examples import examples
from tests.helpers.random_wirings import WIRINGS, small_mobilenet
from tests.helpers.random_wirings import build as build_network
from wirings.compacting import compact
from wirings.errors import WiringError
from wirings.native import load_kernels

pytestmark = NEEDS_COMPILER


@pytest.fixture
def network():
    model = small_mobilenet()
    return compact(model, "native"), compact(model, "dense")


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@given(
    kinds=st.lists(WIRINGS, min_size=4, max_size=4),
    seed=st.integers(0, 10_000),
    image_size=st.sampled_from([32, 224]),
    small=st.booleans(),
    images=st.integers(1, 9),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    threads=st.integers(1, 9),
)
@examples(150)
def test_logits_of_odd_sizes(kinds, seed, image_size, small, images, size, threads):
    """Maps from 1×1 to 70×70 at a stem of stride 1; in strips where they are large."""
    torch.set_num_threads(threads)
    model = small_mobilenet(seed, kinds, image_size, small)
    pixels = torch.randn(images, 3, *size)
    assert_close(compact(model, "native")(pixels), compact(model, "dense")(pixels))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [(224, 224), (160, 131), (300, 90)])
def test_logits_of_large_maps(network, size, threads):
    torch.set_num_threads(threads)
    native, dense = network
    for images in (1, 5):
        pixels = torch.randn(images, 3, *size)
        assert_close(native(pixels), dense(pixels))


def test_repeated_calls_of_changing_size_are_the_same_to_the_bit(network):
    native, _ = network
    batches = [torch.randn(images, 3, 40, 40 + images) for images in (1, 6, 2, 3)]
    first = [native(batch) for batch in batches]
    for batch, logits in zip(batches, first, strict=True):
        assert torch.equal(native(batch), logits)


def test_memory_is_kept_for_a_few_sizes(network):
    """Though images of ever new sizes come; sizes that come again give the same."""
    native, dense = network
    for size in (*range(20, 40), 20):
        pixels = torch.randn(1, 3, size, size)
        assert_close(native(pixels), dense(pixels))
        assert len(native._programs) <= 4


def test_any_layout_in_memory(network):
    native, dense = network
    pixels = torch.randn(4, 3, 40, 33)
    for other in (pixels.contiguous(memory_format=torch.channels_last), pixels[::2], pixels[..., 1::2]):
        assert_close(native(other), dense(other))


def test_bytes_are_normalised(network):
    native, dense = network
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pixels = torch.randint(0, 256, (3, 45, 38, 3), dtype=torch.uint8)
    with pytest.raises(ValueError, match="uint8 images need mean and std: call normalise_bytes first"):
        native(pixels)
    native.normalise_bytes(mean, std)
    floats = (pixels / 255 - torch.tensor(mean)) / torch.tensor(std)
    assert_close(native(pixels), dense(floats.permute(0, 3, 1, 2)))


def test_classifiers_in_16_bits():
    model = small_mobilenet(image_size=32)
    images = torch.randn(5, 3, 40, 33)
    exact, half = compact(model, "native")(images), compact(model, "native", bf16=True)(images)
    assert not torch.equal(half, exact)
    rounded = small_mobilenet(image_size=32)
    rounded.linear.weight.data = rounded.linear.weight.data.bfloat16().float()
    assert_close(half, compact(rounded, "native")(images))


def test_16_bits_on_another_engine_are_told(caplog):
    compact(small_mobilenet(), "csr", bf16=True)
    assert "bf16 has no effect: only whole MobileNet graphs on the engines native and triton" in caplog.text


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 3, 32, 32, dtype=torch.float64), "images of float32 or uint8, got torch.float64"),
        (torch.zeros(1, 4, 32, 32), r"images must be \(images, 3, height, width\), got \(1, 4, 32, 32\)"),
        (torch.zeros(3, 32, 32), r"got \(3, 32, 32\)"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), r"\(images, height, width, 3\), got \(1, 3, 32, 32\)"),
        (torch.zeros(1, 3, 32, 32, device="meta"), "engine native runs on the CPU; images are on meta"),
    ],
)
def test_wrong_images_are_refused(network, images, message):
    with pytest.raises(ValueError, match=message):
        network[0](images)


def test_a_network_on_another_device_is_refused():
    for model in (small_mobilenet(), build_network("small_scale/static_dnw.yml")):
        with pytest.raises(ValueError, match="engine native runs on the CPU, and the network is on meta"):
            compact(model.to("meta"), "native")


def test_images_of_another_size_are_refused_by_the_library(network):
    native, _ = network
    loaded = load_kernels().open(native.program(32, 32).to_bytes())
    with pytest.raises(WiringError, match=r"an input is \(2, 3, 32, 30\), not \(2, 3, 32, 32\)"):
        loaded.run([torch.randn(2, 3, 32, 30)], 1)


def test_a_network_within_a_compiled_function(network):
    """torch.compile leaves the engine's call as it is."""
    native, _ = network
    pixels = torch.randn(2, 3, 32, 32)
    compiled = torch.compile(lambda images: native(images) * 2, backend="eager")
    torch.testing.assert_close(compiled(pixels), native(pixels) * 2)


@given(
    targets=st.integers(0, 9),
    sources=st.integers(1, 9),
    pixels=st.integers(1, 600),
    threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@examples(60)
def test_products_of_any_number_of_pixels(targets, sources, pixels, threads, seed):
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    weight = torch.randn(targets, sources) * (torch.rand(targets, sources) < 0.5)
    maps = torch.randn(sources, pixels)
    product = build_product(weight)
    torch.testing.assert_close(product(maps), weight @ maps, rtol=1e-5, atol=1e-5)


def build_product(weight):
    from wirings.engines.native import NativeProduct

    return NativeProduct(weight)


def test_nothing_is_allocated_after_the_first_call_but_the_logits(network):
    native, _ = network
    pixels = torch.randn(3, 3, 32, 32)
    native(pixels)
    with torch.profiler.profile(profile_memory=True) as profile:
        native(pixels)
    sizes = [event.cpu_memory_usage for event in profile.events() if event.cpu_memory_usage > 0]
    assert set(sizes) == {3 * 7 * 4}


def test_several_threads_call_one_network(network):
    native, _ = network
    batches = [torch.randn(1 + number % 3, 3, 40, 40) for number in range(8)]
    wanted, found = [native(batch) for batch in batches], [None] * len(batches)

    def call(number):
        for _ in range(20):
            found[number] = native(batches[number])

    callers = [threading.Thread(target=call, args=(number,)) for number in range(len(batches))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all(torch.equal(first, second) for first, second in zip(wanted, found, strict=True))


def test_a_forked_process_has_threads_of_its_own(network):
    native, _ = network
    torch.set_num_threads(2)
    pixels = torch.randn(2, 3, 32, 32)
    wanted = native(pixels)
    child = os.fork()
    if not child:
        os._exit(0 if torch.equal(native(pixels), wanted) else 1)
    assert os.waitpid(child, 0)[1] == 0
