"""wire and unwire: any layer, budgets, rules with state; mistakes leave the network as it was."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

import wirings
from genutil.config import load_config
from models import build_model
from tests.conftest import ROOT
from tests.wirings.small_network import IMAGES, LAYERS, masked_by_hand, network
from wirings.errors import NotFiniteError, WiringError
from wirings.layers import WiredLayer
from wirings.rules.base import EdgeRule
from wirings.selection import EdgeSelection
from wirings.stages import find_liveness
from wirings.topk import num_kept, top_mask
from wirings.weights_file import match_and_load_weights


def test_logits_are_those_of_the_strongest_weights():
    model = network().eval()
    twin = masked_by_hand(model, 0.2)
    wiring = wirings.wire(model, density=0.2)
    assert list(wiring.rules) == LAYERS
    assert torch.allclose(model(IMAGES), twin(IMAGES), atol=1e-6)
    total = sum(weight.numel() for name, weight in model.named_parameters() if name in LAYERS)
    assert wiring.summary().total.in_use == num_kept(total, 0.8) == int(sum(
        mask.sum() for mask in wiring.adjacency().values()
    ))  # fmt: skip


def test_names_of_the_state_dict_stay():
    plain, wired = network(), network()
    wirings.wire(wired, density=0.2)
    assert list(wired.state_dict()) == list(plain.state_dict())
    wired.load_state_dict(plain.state_dict())
    plain.load_state_dict(wired.state_dict())
    assert [name for name, _ in wired.named_parameters()] == [name for name, _ in plain.named_parameters()]


def test_the_gradient_reaches_all_weights_or_the_used_ones():
    for rule, reached in (("dnw", "all"), ("random", "used"), ("dnw_no_update", "used")):
        model = network()
        wiring = wirings.wire(model, rule, density=0.2)
        model(IMAGES).square().sum().backward()
        for name, mask in wiring.adjacency().items():
            gradient = model.get_parameter(name).grad
            assert (gradient[mask] != 0).any()
            assert (gradient[~mask] != 0).any() == (reached == "all"), name


LAYER_CASES = {
    "Conv1d": (nn.Conv1d(4, 6, 3, padding=1), (2, 4, 9)),
    "Conv1d, circular": (nn.Conv1d(4, 6, 3, padding=1, padding_mode="circular"), (2, 4, 9)),
    "Conv2d": (nn.Conv2d(4, 6, 3, stride=2, dilation=2, padding="valid"), (2, 4, 9, 9)),
    "Conv3d": (nn.Conv3d(2, 4, 2), (2, 2, 4, 4, 4)),
    "ConvTranspose1d": (nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1), (2, 4, 9)),
    "ConvTranspose2d": (nn.ConvTranspose2d(4, 6, 3, groups=2), (2, 4, 5, 5)),
    "ConvTranspose3d": (nn.ConvTranspose3d(2, 4, 2), (2, 2, 3, 3, 3)),
    "Linear": (nn.Linear(12, 7), (3, 12)),
    "Linear, no bias": (nn.Linear(12, 7, bias=False), (3, 5, 12)),
}


@pytest.mark.parametrize("case", LAYER_CASES)
@pytest.mark.parametrize("rule", ["dnw", "random"])
def test_every_type_of_layer(case, rule):
    layer, shape = LAYER_CASES[case]
    model = nn.Sequential(copy.deepcopy(layer))
    inputs = torch.randn(*shape)
    wiring = wirings.wire(model, rule, density=0.3)
    (mask,) = wiring.adjacency().values()
    assert int(mask.sum()) == num_kept(mask.numel(), 0.7)
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin.weight.mul_(mask)
    assert torch.allclose(model(inputs), twin(inputs), atol=1e-6)
    assert isinstance(model[0], WiredLayer)
    assert isinstance(model[0], type(layer))
    plain = wirings.unwire(model)
    assert type(plain[0]) is type(layer)
    assert torch.equal(plain[0].weight, twin.weight)
    assert torch.allclose(plain(inputs), twin(inputs), atol=1e-6)
    assert "wiring" not in dict(plain.named_modules())


class SamePadding(nn.Conv2d):
    """A convolution with a forward pass of its own, as timm has."""

    def forward(self, maps):
        return F.conv2d(F.pad(maps, (1, 1, 1, 1)), self.weight, self.bias, self.stride)


def test_a_layer_with_a_forward_of_its_own():
    model = nn.Sequential(SamePadding(3, 8, 3))
    twin = copy.deepcopy(model)
    wiring = wirings.wire(model, density=0.2)
    with torch.no_grad():
        twin[0].weight.mul_(wiring.adjacency()["0.weight"])
    assert torch.allclose(model(IMAGES), twin(IMAGES), atol=1e-6)
    model(IMAGES).sum().backward()
    assert model[0]._parameters["weight"].grad.count_nonzero() > 0.9 * 8 * 3 * 9
    model.load_state_dict(twin.state_dict())
    assert torch.equal(wirings.unwire(model)[0].weight, twin[0].weight)


@pytest.mark.parametrize("training", [True, False])
def test_attention_reads_the_weights_in_use(training):
    """torch's attention and its fast path read weights of layers that they never call."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).train(training)
    plain = copy.deepcopy(model)
    wiring = wirings.wire(model, density=0.3)
    assert "layers.0.self_attn.out_proj.weight" in wiring.rules
    with torch.no_grad():
        for name, mask in wiring.adjacency().items():
            plain.get_parameter(name).mul_(mask)
        inputs = torch.randn(3, 7, 16)
        assert torch.allclose(model(inputs), plain(inputs), atol=1e-5)


class Twice(nn.Module):
    """One layer that is called twice, under two names."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = self.first

    def forward(self, inputs):
        return self.second(F.relu(self.first(inputs)))


def test_a_shared_module_is_wired_once():
    model = Twice()
    wiring = wirings.wire(model, density=0.5)
    assert list(wiring.rules) == ["first.weight"]
    assert model.first is model.second
    model(torch.randn(2, 6)).sum().backward()
    assert wiring.summary().total.in_use == 18


def test_tied_weights_are_refused():
    model = nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 9, bias=False), nn.Linear(9, 4))
    model[1].weight = model[0].weight
    with pytest.raises(WiringError, match=r"0\.weight and 1\.weight are the same parameter; exclude 1"):
        wirings.wire(model)
    assert not any(isinstance(module, WiredLayer) for module in model.modules())
    assert list(wirings.wire(model, exclude="1").rules) == ["2.weight"]


def test_budgets():
    total = num_kept(
        sum(weight.numel() for name, weight in network().named_parameters() if name in LAYERS), 0.9
    )
    in_use = {}
    for budget in ("uniform", "erk", "global"):
        summary = wirings.wire(network(), density=0.1, budget=budget).summary()
        assert summary.total.in_use == total
        in_use[budget] = [layer.in_use for layer in summary.layers]
    assert len({tuple(counts) for counts in in_use.values()}) == 3
    patterns = wirings.wire(network(), budget={"0.*": 0.5, "*": 0.1}).summary().layers
    assert [layer.in_use for layer in patterns] == [108, num_kept(288, 0.9), num_kept(1440, 0.9)]
    function = wirings.wire(network(), budget=lambda shapes, density: dict.fromkeys(shapes, 7))
    assert [layer.in_use for layer in function.summary().layers] == [7, 7, 7]


def test_global_budget_is_one_ranking():
    model = network()
    with torch.no_grad():
        model[3].weight.mul_(10)
    wiring = wirings.wire(model, density=0.1, budget="global")
    scores = torch.cat([model.get_parameter(name).flatten() for name in LAYERS])
    expected = top_mask(scores, num_kept(len(scores), 0.9))
    found = torch.cat([mask.flatten() for mask in wiring.adjacency().values()])
    assert torch.equal(found, expected)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        model(IMAGES).square().sum().backward()
        optimizer.step()
        model(IMAGES)
        scores = torch.cat([model.get_parameter(name).flatten() for name in LAYERS])
        found = torch.cat([mask.flatten() for mask in wiring.adjacency().values()])
        assert torch.equal(found, top_mask(scores, int(expected.sum())))
    model.eval()
    model(IMAGES)
    model[6].weight.data.mul_(50)  # passes torch's version counter by
    found = torch.cat([mask.flatten() for mask in wiring.adjacency().values()])
    scores = torch.cat([model.get_parameter(name).flatten() for name in LAYERS])
    assert torch.equal(found, top_mask(scores, int(expected.sum())))


class Grow(EdgeRule):
    """Keeps its mask in a buffer and exchanges one edge in each step."""

    gradient = "used"

    def __init__(self, potential, num_edges, every=1):
        super().__init__(potential, num_edges)
        self.every = every
        self.register_buffer("mask", top_mask(self.weight, num_edges))
        self.steps = []

    def select(self):
        return EdgeSelection.from_mask(self.mask)

    def after_backward(self, step):
        self.steps.append((step.index, step.total))
        if step.index % self.every == 0:
            gone = self.mask.flatten().nonzero()[0]
            new = (~self.mask).flatten().nonzero()[0]
            self.mask.view(-1)[gone], self.mask.view(-1)[new] = False, True
            with torch.no_grad():
                self.weight.view(-1)[new] = 0
            grown = torch.zeros_like(self.mask)
            grown.view(-1)[new] = True
            step.reset_optimizer_state(self.weight, grown)


def test_a_rule_with_state():
    model = network()
    wiring = wirings.wire(model, Grow, density=0.2, every=2)
    before = wiring.state()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(4):
        model(IMAGES).square().sum().backward()
        wiring.after_backward(optimizer, step, 4)
        optimizer.step()
    rule = wiring.rules["0.weight"]
    assert rule.steps == [(step, 4) for step in range(4)]
    assert wiring.churn(before)["total"] > 0
    counts = [layer.in_use for layer in wiring.summary().layers]
    assert counts == [len(indices) for indices in before.values()]
    assert "0.wiring.mask" in model.state_dict()
    twin = network()
    again = wirings.wire(twin, Grow, density=0.2, every=2)
    twin.load_state_dict(model.state_dict())
    assert again.churn(wiring.state())["total"] == 0
    # A checkpoint of the unwired network has no masks; they stay.
    twin.load_state_dict(network().state_dict())
    assert again.churn(wiring.state())["total"] == 0


def test_a_checkpoint_with_the_state_of_some_rules_is_refused():
    model = network()
    wiring = wirings.wire(model, Grow, density=0.2, every=2)
    masks = [name for name in model.state_dict() if name.endswith(".wiring.mask")]
    assert len(masks) == len(wiring.rules) > 1
    for missing in (masks[:1], masks[-1:], masks[1:]):
        state = {name: value for name, value in model.state_dict().items() if name not in missing}
        with pytest.raises(RuntimeError, match=rf"Missing key\(s\) in state_dict: .*{missing[0]}"):
            model.load_state_dict(state)
        assert model.load_state_dict(state, strict=False).missing_keys == missing
        with pytest.raises(WiringError, match=f"misses {missing[0]}"):
            match_and_load_weights(model, state, "x.pt")
    # The network may be a part of another one, and may be copied.
    outer = nn.ModuleDict({"a": copy.deepcopy(model), "b": network()})
    outer.load_state_dict(nn.ModuleDict({"a": network(), "b": network()}).state_dict())


def test_momenta_of_new_edges_are_reset():
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    weight.grad = torch.ones(3)
    optimizer.step()
    entries = torch.tensor([True, False, False])
    wirings.Step(0, 1, optimizer).reset_optimizer_state(weight, entries)
    state = optimizer.state[weight]
    assert state["exp_avg"][0] == state["exp_avg_sq"][0] == 0
    assert (state["exp_avg"][1:] > 0).all()
    assert state["step"] == 1


def test_summary_is_a_table():
    model = network()
    text = str(wirings.wire(model, density=0.2, exclude="6").summary()).splitlines()
    assert text[0].split("|")[1:6] == [" layer    ", " rule ", " potential ", " in use ", " density "]
    assert text[-1] == "dense: 6.weight"
    assert [cell.strip() for cell in text[-3].split("|")[1:6]] == ["total", "", "504", "101", "20.04%"]


WRONG = {
    "rule": ({"rule": "dnv"}, "rule must be one of ac_dc, chts, complete, dnw, .*got dnv; did you mean dnw"),
    "rule that is none": ({"rule": nn.Linear}, "Linear is not a subclass of wirings.rules.base.EdgeRule"),
    "rule without select": ({"rule": EdgeRule}, r"EdgeRule must define select\(\)"),
    "option": ({"edge_scop": "all"}, "rule dnw has no option edge_scop; it takes edge_scope; did you mean"),
    "missing option": ({"rule": "td"}, "rule td needs the option rho"),
    "density": ({"density": 1.5}, r"density must be within 0\.\.1, got 1\.5"),
    "density, NaN": ({"density": float("nan")}, r"density must be within 0\.\.1"),
    "budget": ({"budget": "urk"}, "budget must be one of uniform, erk, .*did you mean erk"),
    "budget, too much": (
        {"budget": lambda shapes, density: dict.fromkeys(shapes, 10**6)},
        r"the budget has 1000000 edges for 0\.weight, which can have 0 to 216",
    ),
    "budget, global": ({"rule": "random", "budget": "global"}, "and random does not; choose"),
    "budget, global, by row": (
        {"rule": "reg_td", "budget": "global", "prune_rate": 0.9, "rho": 0.5},
        "and reg_td does not; choose",
    ),
    "include": ({"include": "fc"}, "include: fc matches no module of the network"),
    "include, near": (
        {"include": ["0", "33"]},
        "include: 33 matches no module of the network; did you mean 3",
    ),
    "include, a norm": ({"include": "1"}, "1 is a BatchNorm2d, which cannot be wired; Linear, Conv1d"),
    "exclude": ({"exclude": "9.*"}, "exclude: 9.* matches no module"),
    "exclude, no effect": ({"exclude": "1"}, "exclude: 1 matches no layer that would be wired"),
    "nothing left": ({"exclude": "*"}, "no layer of Sequential is to be wired"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_leave_the_network_as_it_was(case):
    arguments, message = WRONG[case]
    model = network()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(WiringError, match=message):
        wirings.wire(model, **arguments)
    assert not any(isinstance(module, WiredLayer) for module in model.modules())
    assert list(model.state_dict()) == list(before)
    assert all(map(torch.equal, model.state_dict().values(), before.values()))


def test_networks_that_cannot_be_wired():
    model = network()
    wirings.wire(model, include="3")
    with pytest.raises(WiringError, match=r"3 is wired already; call wirings\.unwire\(model\) first"):
        wirings.wire(model)
    with torch.no_grad():
        model[6].weight[0, 0] = torch.nan
    with pytest.raises(WiringError, match="6 has a weight that is NaN"):
        wirings.wire(model, include="6")
    with pytest.raises(WiringError, match="ReLU has no wired layers"):
        wirings.unwire(nn.ReLU())
    with pytest.raises(WiringError, match="no layer of Sequential is to be wired"):
        wirings.wire(nn.Sequential(nn.ReLU()))
    with pytest.raises(WiringError, match="the network is a single Linear"):
        wirings.wire(nn.Linear(2, 2))
    with pytest.raises(WiringError, match="0 has no weights yet; run a batch"):
        wirings.wire(nn.Sequential(nn.LazyLinear(3)))
    normed = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 4)), nn.Linear(4, 2))
    assert list(wirings.wire(normed).rules) == ["1.weight"]
    wirings.unwire(normed)
    with pytest.raises(WiringError, match="0: its weight is not a parameter but computed"):
        wirings.wire(normed, include="0")


def test_nan_in_training_is_named():
    model = network()
    wirings.wire(model, density=0.2)
    with torch.no_grad():
        model[3].weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(NotFiniteError, match=r"3\.weight: an edge weight is NaN"):
        model(IMAGES)


def test_records_of_another_network_are_refused():
    first, second = (wirings.wire(network(), exclude=exclude) for exclude in ("0", "3"))
    with pytest.raises(
        WiringError, match=r"the state is that of another network: only one of them has 0\.weight, 3\.weight"
    ):
        first.churn(second.state())


def test_summary_of_a_network_that_describes_itself():
    model = build_model(load_config(ROOT / "apps" / "small_scale" / "static_dnw.yml"))
    summary = wirings.Wiring(model).summary()
    assert summary.total.in_use == 32_000
    assert summary.total.effective == int(find_liveness(model.stages())[0].edges.sum()) < 32_000
    assert "effective" in str(summary)


def test_networks_without_memory_can_be_wired():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(6, 4))
    wiring = wirings.wire(model, density=0.25)
    assert wiring.rules["0.weight"].num_edges == 6
    assert model(torch.empty(2, 6, device="meta")).shape == (2, 4)
