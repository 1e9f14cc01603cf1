"""Logits and losses of networks compared with the published numbers, on any device."""

import json

import numpy as np
import torch
import torch.nn.functional as F

from genutil.config import load_config
from models import build_model
from tests.conftest import ROOT
from tests.goldens.synth import synth_images, synth_labels, synth_state

GOLDENS = ["small_scale_static_dnw", "medium_scale_mobilenetv1_dnw_x225"]


def read_golden(name):
    """(shapes by state name, configuration, numbers)."""
    folder = ROOT / "tests" / "goldens"
    facts = json.loads((folder / f"{name}.json").read_text())
    config = load_config(ROOT / facts["yml"], dict(facts["overrides"]))
    return facts["shapes"], config, np.load(folder / f"{name}.npz", allow_pickle=False)


def check_logits(golden, device):
    shapes, config, numbers = golden
    model = build_model(config).eval()
    model.load_state_dict(synth_state(shapes))
    model.to(device)
    with torch.no_grad():
        logits = model(synth_images(4, config.image_size).to(device)).cpu().numpy()
    expected = numbers["eval_logits"]
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


def check_losses_of_four_steps(golden, device):
    shapes, config, numbers = golden
    model = build_model(config).double().train()
    model.load_state_dict(synth_state(shapes, torch.float64))
    model.to(device)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    images = synth_images(8, config.image_size, seed=21, dtype=torch.float64).to(device)
    labels = synth_labels(8, config.output_size).to(device)
    losses = []
    for _ in range(4):
        loss = F.cross_entropy(model(images), labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert np.abs(np.array(losses) - numbers["train_losses"]).max() <= 1e-5
