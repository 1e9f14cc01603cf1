"""Numbers of the published behaviour: state names and shapes, logits, losses of four SGD steps."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from genutil.config import load_config
from models import build_model
from tests.conftest import ROOT
from tests.goldens.synth import synth_images, synth_labels, synth_state

GOLDENS = ["small_scale_static_dnw", "medium_scale_mobilenetv1_dnw_x225"]


@pytest.fixture(params=GOLDENS)
def golden(request):
    folder = ROOT / "tests" / "goldens"
    facts = json.loads((folder / f"{request.param}.json").read_text())
    config = load_config(ROOT / facts["yml"], dict(facts["overrides"]))
    return facts["shapes"], config, np.load(folder / f"{request.param}.npz", allow_pickle=False)


def test_state_names_and_shapes(golden):
    shapes, config, _ = golden
    state = build_model(config).state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == shapes


def test_logits(golden):
    shapes, config, numbers = golden
    model = build_model(config).eval()
    model.load_state_dict(synth_state(shapes))
    with torch.no_grad():
        logits = model(synth_images(4, config.image_size)).numpy()
    expected = numbers["eval_logits"]
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


def test_losses_of_four_steps(golden):
    shapes, config, numbers = golden
    model = build_model(config).double().train()
    model.load_state_dict(synth_state(shapes, torch.float64))
    optimizer = torch.optim.SGD(
        model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    images = synth_images(8, config.image_size, seed=21, dtype=torch.float64)
    labels = synth_labels(8, config.output_size)
    losses = []
    for _ in range(4):
        loss = F.cross_entropy(model(images), labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert np.abs(np.array(losses) - numbers["train_losses"]).max() <= 1e-5
