"""Numbers of the published behaviour: state names and shapes, logits, losses of four SGD steps."""

import pytest

from models import build_model
from tests.goldens.checks import GOLDENS, check_logits, check_losses_of_four_steps, read_golden


@pytest.fixture(params=GOLDENS)
def golden(request):
    return read_golden(request.param)


def test_state_names_and_shapes(golden):
    shapes, config, _ = golden
    state = build_model(config).state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == shapes


def test_logits(golden):
    check_logits(golden, "cpu")


def test_losses_of_four_steps(golden):
    check_losses_of_four_steps(golden, "cpu")
