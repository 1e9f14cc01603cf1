"""Networks on a GPU: goldens, selection, gradients, engines, precision, compiled and captured steps."""

import contextlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from genutil.config import load_config
from models import build_model
from models.compiling import compile_network
from models.graphs.topk import Selector, choose_top_edges, top_mask, top_mask_by_row
from tests.conftest import ROOT, SMALL_GRAPH
from tests.goldens.checks import GOLDENS, check_logits, check_losses_of_four_steps, read_golden
from trainers.captured import CapturedStep
from trainers.optimizers import sgd
from trainers.precision import Precision
from wirings.compacting import compact
from wirings.radix import RadixSelect, is_supported

pytestmark = pytest.mark.gpu
FAMILIES = ["small_scale/static_dnw", "small_scale/discrete_time_dnw", "medium_scale/mobilenetv1_dnw_x225"]
CONTINUOUS = "small_scale/continuous_time_dnw"


@pytest.fixture(params=GOLDENS)
def golden(request):
    return read_golden(request.param)


def test_golden_logits(golden, device):
    check_logits(golden, device)


def test_golden_losses(golden, device):
    check_losses_of_four_steps(golden, device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("values", ["normal", "ties", "equal", "zeros"])
def test_selection_is_that_of_the_cpu(dtype, values, device):
    torch.manual_seed(0)
    weight = torch.randn(300, 70)
    weight = {
        "normal": weight,
        "ties": (4 * weight).round(),
        "equal": torch.full_like(weight, -0.5),
        "zeros": weight * (torch.rand_like(weight) < 0.05),
    }[values].to(dtype)
    for count in (0, 1, 333, 20_999, 21_000):
        selector = Selector(count)
        for _ in range(3):  # later ones begin at the last threshold
            assert torch.equal(selector.select(weight.to(device)).mask().cpu(), top_mask(weight, count))
    assert torch.equal(top_mask_by_row(weight.to(device), 5).cpu(), top_mask_by_row(weight, 5))


def test_radix_selection_in_a_graph(device):
    """Large weights, by the radix search itself, captured and replayed while the weights move."""
    if device.type != "cuda":
        pytest.skip("Triton's interpreter takes minutes for it; see tests/models/test_radix.py")
    torch.manual_seed(0)
    for size, count in ((640_000, 32_000), (8_650_752, 72_991)):
        selection, weight = RadixSelect(), torch.randn(size, device=device)
        assert is_supported(weight)
        for _ in range(4):
            assert torch.equal(selection.mask(weight, count).cpu(), top_mask(weight.cpu(), count))
            weight.add_(1e-3 * torch.randn_like(weight))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            mask = selection.mask(weight, count)
        for _ in range(3):
            weight.add_(1e-2 * torch.randn_like(weight))
            graph.replay()
            assert torch.equal(mask.cpu(), top_mask(weight.cpu(), count))


def test_straight_through_gradients(device):
    weight, sources, factors = torch.randn(40, 30), torch.randn(30, 5), torch.rand(40, 5) + 1
    found = []
    for place in ("cpu", device):
        own = weight.detach().to(place).requires_grad_()
        ((choose_top_edges(own, 0.9) @ sources.to(place)) * factors.to(place)).sum().backward()
        found.append(own.grad.cpu())
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)
    assert (found[1] != 0).all()


def small_network(app, **changes):
    torch.manual_seed(0)
    config = load_config(ROOT / "apps" / f"{app}.yml")
    small = {**SMALL_GRAPH, "image_size": 32, "prune_rate": config.prune_rate, "output_size": 10, **changes}
    return build_model(load_config(ROOT / "apps" / f"{app}.yml", {**small, "topk": [1]}))


@pytest.mark.parametrize("engine", ["auto", "dense", "csr", "triton"])
@pytest.mark.parametrize("app", FAMILIES)
def test_logits_of_every_engine(app, engine, device, small_mobilenet):
    model = small_network(app).to(device).eval()
    images = torch.randn(3, 3, 32, 32, device=device)
    with torch.no_grad():
        torch.testing.assert_close(compact(model, engine)(images), model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("amp", [None, "bf16", "fp16"])
@pytest.mark.parametrize("app", [*FAMILIES, CONTINUOUS])
def test_steps_lower_the_loss(app, amp, device, small_mobilenet):
    model = small_network(app).to(device).train()
    losses = list(run_steps(model, device, amp))
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("app", [*FAMILIES, CONTINUOUS])
def test_compiled_networks(app, device, small_mobilenet):
    torch.compiler.reset()
    backend = "inductor" if device.type == "cuda" else "aot_eager"
    plain, compiled = (small_network(app).to(device).train() for _ in range(2))
    compile_network(compiled, device, backend)
    images = torch.randn(4, 3, 32, 32, device=device)
    torch.testing.assert_close(compiled(images), plain(images), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("app", [*FAMILIES, CONTINUOUS])
def test_steps_wait_for_nothing_and_can_be_captured(app, device, small_mobilenet):
    """No host synchronisation in a step; the losses of replayed steps are those of plain ones."""
    keys = {"ode_solver": "rk4", "ode_steps": 3} if app == CONTINUOUS else {}
    plain, model = (small_network(app, **keys).to(device).train() for _ in range(2))
    plain = list(run_steps(plain, device, None))
    with no_synchronisation(device):
        losses = list(run_steps(model, device, None, capture=device.type == "cuda", read=False))
    np.testing.assert_allclose(torch.stack(losses).cpu(), plain, rtol=2e-2)


def run_steps(model, device, amp, capture=False, read=True, steps=8):
    """Losses of some steps on one batch."""
    torch.manual_seed(1)
    precision = Precision(amp, device)
    optimizer = sgd(model.parameters(), 0.02, 0.9, 0.0, nestorov=False)
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"]).to(device)
    images = torch.randn(16, 3, 32, 32).to(device)
    labels = (torch.arange(16) % 10).to(device)

    def step(images, labels):
        optimizer.zero_grad(set_to_none=True)
        with precision.autocast():
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
        precision.backward(loss)
        precision.step(optimizer)
        return loss.detach(), logits.detach()

    run = CapturedStep(step) if capture else step
    for number in range(steps):
        with no_synchronisation(device) if number > 4 and amp is None else contextlib.nullcontext():
            loss = run(images, labels)[0].clone()
        yield loss.item() if read else loss


@contextlib.contextmanager
def no_synchronisation(device):
    """Within it, waiting for the device is an error; what prepares a network may wait."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
