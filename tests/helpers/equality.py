"""Equality to the bit, and up to rounding."""

import torch

STATE = ("model", "optimizer", "last_epoch", "best_val", "iter", "scheduler", "rng")
"""Entries of a checkpoint that decide how the training continues."""


def same(first, second):
    """Whether two trees of dictionaries, lists and tensors, such as checkpoints, are equal to the bit."""
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def assert_close(first, second):
    """Logits of equal shape differ by less than 0.01 % of the largest."""
    assert first.shape == second.shape
    assert (first - second).abs().max() <= 1e-4 * second.abs().max().clamp(min=1e-6)
