"""What compact networks derive from their weights follows these, and is neither copied nor saved."""

import copy
import os
import pickle
import threading

import pytest
import torch

from tests.helpers.engines import CPU_ENGINES, NEEDS_COMPILER
from tests.helpers.equality import assert_close
from tests.helpers.random_wirings import small_mobilenet
from wirings.compacting import compact


@pytest.fixture(params=CPU_ENGINES)
def engine(request):
    return request.param


def test_weights_that_are_loaded_after_a_call(engine):
    first, other = (compact(small_mobilenet(), engine) for _ in range(2))
    pixels = torch.randn(2, 3, 33, 31)
    first(pixels)
    other.load_state_dict(
        {name: weight * 0.9 for name, weight in other.state_dict().items() if weight.is_floating_point()},
        strict=False,
    )
    first.load_state_dict(other.state_dict())
    assert not torch.allclose(first(pixels), compact(small_mobilenet(), engine)(pixels))
    assert torch.equal(first(pixels), other(pixels))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_copies_after_a_call(engine, copied):
    network = compact(small_mobilenet(), engine)
    pixels = torch.randn(2, 3, 33, 31)
    wanted = network(pixels)
    assert torch.equal(copied(network)(pixels), wanted)


@pytest.mark.parametrize("engine", ["auto", "dense", "csr"])
def test_other_precision(engine):
    model = small_mobilenet().double()
    pixels = torch.randn(2, 3, 33, 31, dtype=torch.float64)
    assert_close(compact(model, engine)(pixels), model(pixels))
    network = compact(small_mobilenet(), "csr" if engine == "auto" else engine)
    network(pixels.float())
    assert_close(network.double()(pixels), small_mobilenet().double()(pixels))


def test_a_precision_that_the_kernels_do_not_have():
    with pytest.raises(
        ValueError, match=r"engine native computes in float32, and the network is in torch\.float64"
    ):
        compact(small_mobilenet().double(), "native")


@NEEDS_COMPILER
def test_a_fork_while_another_thread_calls():
    native, pixels = compact(small_mobilenet(), "native"), torch.randn(1, 3, 32, 32)
    wanted = native(pixels)
    holding, done = threading.Event(), threading.Event()

    def hold():
        with native._busy:
            holding.set()
            done.wait()

    other = threading.Thread(target=hold)
    other.start()
    holding.wait()
    child = os.fork()
    if not child:
        os._exit(0 if torch.equal(native(pixels), wanted) else 1)
    status = os.waitpid(child, 0)[1]
    done.set()
    other.join()
    assert status == 0
