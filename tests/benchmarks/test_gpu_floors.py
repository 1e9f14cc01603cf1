"""The prediction for a GPU counts what is there."""

import argparse
from itertools import pairwise

import torch

from benchmarks import gpu_floors
from tests.conftest import ROOT
from tests.helpers.random_wirings import small_mobilenet
from wirings.compacting import compact


def test_counts_of_a_small_network():
    """Against the edges and maps of the network itself."""
    network = compact(small_mobilenet(5, image_size=32), "dense")
    shapes = []
    products = [onto for stage in network.stages for onto in stage.products]
    for onto in products:
        onto.register_forward_hook(lambda _, given, result: shapes.append((given[0], result)))
    network(torch.zeros(3, 3, 12, 12))
    _stem, _filters, *works, head = gpu_floors.works(network, 12, 3, torch.bfloat16)
    for work, onto, (sources, maps) in zip(works, products, shapes, strict=True):
        weight, pixels = onto.product.weight, sources[0].numel()
        edges = int(weight.count_nonzero())
        assert work.gathered == 2 * edges * pixels + work.between
        assert work.products - work.sums == 2 * (weight.numel() - edges) * pixels
        assert work.between == (0 if onto is products[-1] else 2 * 2 * maps.numel())
        sent = 2 * maps.numel() if onto is products[-1] else work.sums - 2 * edges * pixels
        assert sent > 0
        assert work.moved > 2 * sources.numel() + 8 * edges
    assert head.sums == 2 * 3 * network.head.weight.numel()


def test_predictions(monkeypatch):
    """A larger batch takes longer, and nothing is below its floor."""
    monkeypatch.setattr(gpu_floors, "make_network", lambda *_: small_mobilenet(5))
    app = str(ROOT / "apps/large_scale/mobilenetv1_dnw_x225.yml")
    report = gpu_floors.predict(argparse.Namespace(app=app, wiring="trained", batch_sizes=[1, 8, 64]))
    assert len(report.results) == len(report.rows) == 2 * 3 * 2
    for found in report.results:
        assert found["floor"] < found["fastest"] <= min(found["by_edges"], found["dense"])
    for card in gpu_floors.MEMORY:
        times = [found["fastest"] for found in report.results if found["card"] == card]
        assert all(first < second for half in (times[:3], times[3:]) for first, second in pairwise(half))
    assert "not a measurement" in report.body()
