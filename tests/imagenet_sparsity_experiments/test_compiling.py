"""The ResNets compile in one piece."""

import pytest
import torch

from imagenet_sparsity_experiments.configurations import find_configuration
from imagenet_sparsity_experiments.resnet import SparseResNet
from models.compiling import compile_network
from tests.models.test_compiling import assert_same, outcome


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()


@pytest.mark.parametrize("name", ["dense", "ignorefirst10", "tdsparse30"])
def test_logits_and_gradients_are_the_same(name):
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)

    def build():
        torch.manual_seed(0)
        return SparseResNet("resnet18", find_configuration(name), num_classes=5).double()

    expected, network = outcome(build(), images), build()
    compile_network(network, torch.device("cpu"), backend="aot_eager")
    assert_same(outcome(network, images), expected, 1e-9)
