"""Random numbers repeat, and their state survives a checkpoint."""

import random

import numpy as np
import torch

from genutil.seeding import restore_rng_state, rng_state, seed_everything


def draw():
    return random.random(), np.random.rand(), torch.rand(3).tolist(), random.gauss(0, 1), np.random.randn()


def test_a_seed_repeats():
    seed_everything(2**40 + 5)
    first = draw()
    seed_everything(2**40 + 5)
    assert draw() == first


def test_states_survive_a_file(tmp_path):
    seed_everything(3)
    draw()
    torch.save(rng_state(), tmp_path / "rng.pt")
    expected = draw()
    seed_everything(9)
    restore_rng_state(torch.load(tmp_path / "rng.pt", weights_only=True))
    assert draw() == expected
