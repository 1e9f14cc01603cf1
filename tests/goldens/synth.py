"""Deterministic weights and inputs for the golden checks: a function of names and shapes alone, so that any
implementation with the published state-dict names gets the same numbers."""

import zlib

import numpy as np
import torch


def synth_state(shapes, dtype=torch.float32):
    """{name: shape} -> {name: tensor}. Graph weights get heavy-tailed source scales:
    some nodes die."""
    out = {}
    for name, shape in shapes.items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        shape = tuple(shape)
        if name.endswith("num_batches_tracked"):
            out[name] = torch.zeros(shape, dtype=torch.long)
            continue
        if name.endswith("mask"):
            out[name] = torch.from_numpy((rng.random(shape) < 0.1).astype(np.float64)).to(dtype)
            continue
        if name.endswith("zeros"):
            out[name] = torch.zeros(shape, dtype=dtype)
            continue
        if name.endswith("running_var"):
            a = rng.uniform(0.5, 1.5, shape)
        elif name.endswith("running_mean"):
            a = rng.normal(0, 0.1, shape)
        elif len(shape) == 1 and name.endswith("weight"):
            a = rng.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            a = rng.normal(0, 0.1, shape)
        else:
            fan = int(np.prod(shape[1:]))
            a = rng.uniform(-1, 1, shape) / np.sqrt(fan)
            if name.endswith("graph.weight"):
                a = a * np.exp(0.15 * rng.standard_normal((1, shape[1]) + (1,) * (len(shape) - 2)))
        out[name] = torch.from_numpy(np.asarray(a, dtype=np.float64)).to(dtype)
    return out


def synth_images(n, size, seed=7, dtype=torch.float32):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.standard_normal((n, 3, size, size))).to(dtype)


def synth_labels(n, classes, seed=11):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, classes, n))
