"""The MobileNet graph against a plain definition, its counts against the published ones."""

import functools

import pytest
import torch
import torch.nn.functional as F

from genutil.config import load_config
from models import build_model
from models.graphs.mobilenetv1like import WiredStage
from tests.conftest import ROOT
from wirings.profiling import profile
from wirings.rules import build_rule
from wirings.topk import num_kept


def rule_maker(graph="dnw", **options):
    return lambda potential, prune_rate: build_rule(
        graph, potential, num_kept(potential.numel, prune_rate), **options
    )


def stage(**changes):
    keys = {"inputs": 4, "outputs": 6, "stride": 2, "depth": 3, "acyclic": True, "prune_rate": 0.2}
    return WiredStage(**{**keys, **changes}, make_rule=rule_maker())


def by_the_words(layer, states):
    """Node by node: a target adds up the states of all sources before it."""
    weight, n = layer.graph().flatten(1), layer.outputs
    sent = [layer.downsample(F.relu(layer.norm[0](states)))]
    for group in range(1, layer.depth + 1):
        rows = slice((group - 1) * n, group * n)
        sources = torch.cat(sent, 1)
        received = torch.einsum("ts,nshw->nthw", weight[rows, : sources.shape[1]], sources)
        if group == layer.depth:
            return received
        filters = layer.conv.weight[rows]
        sent.append(F.conv2d(F.relu(layer.norm[group](received)), filters, padding=1, groups=n))


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_stage_node_by_node(depth, stride):
    torch.manual_seed(0)
    layer = stage(depth=depth, stride=stride).double().train()
    states = torch.randn(3, 4, 9, 8, dtype=torch.float64)
    assert torch.allclose(layer(states), by_the_words(layer, states), atol=1e-12)


def test_gradient_reaches_the_readable_entries_alone():
    torch.manual_seed(0)
    layer = stage()
    layer(torch.randn(4, 4, 8, 8)).square().sum().backward()
    touched = layer.graph.weight.grad.flatten(1) != 0
    assert torch.equal(layer.stage("layer").readable_mask(), layer.graph.potential.readable_mask)
    assert (touched <= layer.graph.potential.readable_mask).all()
    assert touched.sum() > 0.6 * layer.graph.potential.readable_mask.sum()


def test_edges_kept_in_each_stage():
    """The formula gives 104 / 1,244.16 / 4,976.64 / 72,990.72 / 79,626.24 edges, which are rounded up."""
    model = build_model(load_config(ROOT / "apps/large_scale/mobilenetv1_dnw_x225.yml"))
    kept = [int(layer.graph.in_use().sum()) for layer in model.layers]
    assert kept == [104, 1245, 4977, 72991, 79627]


def test_small_wires_the_classifier():
    model = build_model(load_config(ROOT / "apps/large_scale/mobilenetv1_dnw_small_x15.yml"))
    assert "linear.graph.weight" in model.state_dict()
    assert not any(name.startswith("linear") and "graph" not in name for name in model.state_dict())
    assert int(model.linear.graph.in_use().sum()) == 1_024_000 - int(0.85 * 1_024_000)
    assert model.wired_layers()[-1].name == "linear.graph"


@pytest.mark.parametrize(
    ("app", "params", "macs"),
    [("random_graph_x225", 1.228e6, 55.7e6), ("random_graph_x49", 1.886e6, 169.6e6)],
)
def test_random_graphs_cost_what_was_published(app, params, macs):
    """With seed 0, as every published run; the MACs hang on how many stem nodes are drawn."""
    torch.manual_seed(0)
    counted = profile(build_model(load_config(ROOT / f"apps/large_scale/mobilenetv1_{app}.yml")))
    assert counted.params == pytest.approx(params, rel=0.01)
    assert counted.macs == pytest.approx(macs, rel=0.01)


def test_profile_at_another_size():
    torch.manual_seed(0)
    small = build_model(load_config(ROOT / "apps/medium_scale/mobilenetv1_dnw_x225.yml"))
    assert [layer.map_size for layer in small.wired_layers()] == [32, 16, 8, 4, 2]
    assert [layer.map_size for layer in small.wired_layers(224)] == [112, 56, 28, 14, 7]
    assert profile(small, 224).params == profile(small).params
    assert profile(small, 224).macs > profile(small).macs


def test_dense_mobilenet_has_the_published_shape():
    model = build_model(load_config(ROOT / "apps/medium_scale/mobilenetv1_x25.yml"))
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes["conv1.weight"] == (8, 3, 3, 3)
    assert shapes["layers.0.conv1.weight"] == (8, 1, 3, 3)
    assert shapes["layers.0.conv2.weight"] == (16, 8, 1, 1)
    assert shapes["layers.12.conv2.weight"] == (256, 256, 1, 1)
    assert shapes["linear.weight"] == (10, 256)
    assert "bn1.weight" in shapes
    assert model.layers[:12](F.relu(model.bn1(model.conv1(torch.randn(2, 3, 32, 32))))).shape[-1] == 2
    assert functools.reduce(lambda a, b: a * b, (layer.conv1.stride[0] for layer in model.layers)) == 16


def test_effective_edges_of_a_wired_classifier():
    """Edges from features that do not depend on the image are not effective."""
    model = build_model(
        load_config(ROOT / "apps/medium_scale/mobilenetv1_random_graph_x225.yml", {"small": True})
    )
    outputs = model.layers[4].stage("last").outputs
    model.layers[4].graph.mask[outputs.start + 3 : outputs.stop] = 0  # three features are left
    *_, classifier = profile(model).per_layer
    assert classifier.live_nodes <= 3
    assert classifier.effective == int(model.linear.graph.mask[:, :3].sum()) < classifier.edges
