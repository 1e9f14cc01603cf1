"""A trained network without its dead neurons: smaller, for evaluation only, with the same logits."""

from __future__ import annotations

import copy
import logging
from typing import TypeGuard, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genutil.errors import UserError
from models.basic.mobilenetv1cifar import MobileNetV1CIFAR
from models.fast_eval.cycles import CycleStage, Repeat, nodes_read
from models.fast_eval.engines import find_engine
from models.fast_eval.engines.dense import DenseProduct
from models.fast_eval.folding import fold_norms
from models.fast_eval.native import NativeNetwork, load_kernels
from models.fast_eval.network import (
    CompactHead,
    CompactNetwork,
    CompactStage,
    ConvStem,
    MakeProduct,
    RunnableStage,
)
from models.fast_eval.plan import as_affine, plan_stage
from models.graphs.edges import EdgeRule
from models.graphs.mobilenetv1like import MobileNetV1Like, WiredLinear
from models.graphs.neuralgraph import (
    ContinuousTimeNeuralGraph,
    DiscreteTimeNeuralGraph,
    StaticNeuralGraph,
    TinyClassifier,
    centre,
)
from models.graphs.stages import Liveness, find_liveness

log = logging.getLogger(__name__)

_Network = TypeVar("_Network", bound=nn.Module)


class NoCompactForm(ValueError):
    """The network is of no kind that can be made smaller."""


def compact(model: nn.Module, engine: str = "auto", bf16: bool = False) -> nn.Module:
    """A new, smaller network with the logits of `model` in evaluation mode.

    Nodes without a path to the logits are left out. In acyclic graphs, nodes without a path from the image
    are constants: they are computed once for an image size and added as a bias. In continuous time all nodes
    stay, since the solver's steps hang on all of them. Batch norms are folded into weights.

    Args:
        model: a wired network or a MobileNetV1CIFAR; it is not changed.
        engine: `native`, `dense`, `csr`, `triton` or `dgl`. `auto` takes what is fastest: on the CPU `native`
            for a MobileNet graph in float32 if there is a C++ compiler, else the faster of dense and csr for
            each product; on a GPU the faster of dense and triton, measured there. A network without wiring
            has no use for one.
        bf16: let the native engine keep the classifier's weights in 16 bits, and Triton's (with `auto` on a
            GPU also the dense products) all maps; sums stay in 32 bits. Only for MobileNet graphs; other
            networks and engines report that it has no effect.

    Raises:
        NoCompactForm: there is no compact form of such a network.
        ValueError: there is no such engine.
        UserError: the engine's library or compiler is not installed.
    """
    make = find_engine(engine)
    native = _runs_natively(model, engine)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            if native and isinstance(model, MobileNetV1Like):
                return NativeNetwork(_compact_mobilenet(model, DenseProduct), bf16)
            if engine != "auto" and _runs_as(model, MobileNetV1CIFAR):
                log.warning("engine %s has no effect on a network without wiring", engine)
            if bf16 and isinstance(model, MobileNetV1Like) and _runs_on_triton(model, engine):
                return _compact_mobilenet(model, make, torch.bfloat16)
            if bf16:
                log.warning(
                    "bf16 has no effect: only whole MobileNet graphs on the engines native and triton have it"
                )
            return _compact(model, make)
    finally:
        for module, training in modes.items():
            module.training = training


def engines_of(network: nn.Module) -> str:
    """What multiplies in a compact network, for reports: `native`, or `csr, dense` where `auto` took both."""
    if isinstance(network, NativeNetwork):
        return "native"
    names = {type(module).__name__ for module in network.modules()} - {"FastestProduct"}
    products = [name.removesuffix("Product").lower() for name in names if name.endswith("Product")]
    return ", ".join(sorted(products)) or "dense"


def _runs_natively(model: nn.Module, engine: str) -> bool:
    """Whether the whole network becomes one program of the native kernels."""
    first = next(model.parameters(), torch.empty(0))
    device = first.device
    if engine == "native" and device.type != "cpu":
        raise ValueError(f"engine native runs on the CPU, and the network is on {device}")
    if engine not in ("native", "auto") or device.type != "cpu" or not _runs_as(model, MobileNetV1Like):
        return False
    if first.dtype != torch.float32:
        if engine == "native":
            raise ValueError(f"engine native calculates in float32, and the network is in {first.dtype}")
        return False
    try:
        load_kernels()
    except UserError as error:
        if engine == "native":
            raise
        log.warning("engine auto runs on torch's products, which are slower: %s", error)
        return False
    return True


def _runs_on_triton(model: nn.Module, engine: str) -> bool:
    """Whether products of this engine keep maps of 16 bits, with sums in 32."""
    device = next(model.parameters(), torch.empty(0)).device
    return _runs_as(model, MobileNetV1Like) and (
        engine == "triton" or (engine == "auto" and device.type == "cuda")
    )


def _compact(model: nn.Module, make: MakeProduct) -> nn.Module:
    if _runs_as(model, MobileNetV1Like):
        return _compact_mobilenet(model, make)
    if _runs_as(model, StaticNeuralGraph):
        return _compact_static(model, make)
    if _runs_as(model, DiscreteTimeNeuralGraph):
        nodes = nodes_read(model.graph.in_use().flatten(1), model.feature_dim, model.layers)
        stage = CycleStage(
            model.graph, model.conv, model.norm, nodes, model.feature_dim, make, Repeat(model.layers)
        )
        return _around(model, stage, nodes[nodes < model.downsample_dim])
    if _runs_as(model, ContinuousTimeNeuralGraph):
        solve, dynamics = model.odesolve.solver, model.odesolve.odefunc
        nodes = torch.arange(model.dim, device=model.zeros.device)
        stage = CycleStage(
            dynamics.graph, dynamics.conv, dynamics.norm, nodes, model.feature_dim, make, solve
        )
        return _around(model, stage, nodes[: model.downsample_dim])
    if _runs_as(model, MobileNetV1CIFAR):
        return fold_norms(model)
    known = "MobileNetV1Like, MobileNetV1CIFAR and the tiny classifiers"
    raise NoCompactForm(f"{type(model).__name__} has no compact form; {known} have one")


def _runs_as(model: nn.Module, kind: type[_Network]) -> TypeGuard[_Network]:
    """Whether the network is of this kind, and no subclass with a forward pass of its own."""
    return isinstance(model, kind) and type(model).forward is kind.forward


def _compact_mobilenet(
    model: MobileNetV1Like, make: MakeProduct, maps_type: torch.dtype | None = None
) -> CompactNetwork:
    stages, liveness = model.stages(), model.liveness()
    leaving = [stage.groups[0].norm for stage in stages[1:]] + [model.bn]
    plans = [plan_stage(*parts) for parts in zip(stages, liveness, leaving, strict=True)]
    bias: Tensor | None = None
    if isinstance(model.linear, WiredLinear):
        rule: EdgeRule = model.linear.graph
        weight: Tensor = rule().flatten(1)
    else:
        weight, bias = model.linear.weight, model.linear.bias
    device = model.conv1.weight.device
    live, constant = _features(liveness[-1], device)
    return CompactNetwork(
        _mobilenet_stem(
            model.conv1, stages[0].groups[0].norm, _entering(liveness[0], model.conv1.out_channels, device)
        ),
        [CompactStage(plan, make, maps_type) for plan in plans],
        CompactHead(weight, bias, live, constant, _mean_of_relu),
    )


def _mobilenet_stem(conv: nn.Conv2d, norm: nn.Module, live: Tensor) -> ConvStem:
    """The first convolution with the norm that follows folded into it, for the live nodes."""
    affine = as_affine(norm, conv.weight, conv.out_channels).of(live)
    return ConvStem(conv.weight[live] * affine.scale.view(-1, 1, 1, 1), affine.shift, conv.stride[0])


def _mean_of_relu(maps: Tensor) -> Tensor:
    return F.relu(maps).mean((2, 3), dtype=torch.promote_types(maps.dtype, torch.float32))


class _TinyStem(nn.Module):
    """The tiny classifiers' stem and the norm that follows, for the live nodes."""

    def __init__(self, downsample: nn.Sequential, norm: nn.Module, live: Tensor) -> None:
        super().__init__()
        self.downsample = copy.deepcopy(downsample)
        self.live = nn.Parameter(live, requires_grad=False)
        self.norm = copy.deepcopy(norm)

    def forward(self, images: Tensor) -> Tensor:
        states = self.norm(self.downsample(images))
        return states.index_select(1, self.live).transpose(0, 1).contiguous()  # type: ignore[no-any-return]


def _compact_static(model: StaticNeuralGraph, make: MakeProduct) -> CompactNetwork:
    stage = model.stage()
    (liveness,) = find_liveness([stage])
    device = model.zeros.device
    entering = _entering(liveness, model.downsample_dim, device)
    plan = plan_stage(stage, liveness, None)
    return _around(
        model, CompactStage(plan, make), entering, stage.groups[0].norm, _features(liveness, device)
    )


def _around(
    model: TinyClassifier,
    stage: RunnableStage,
    entering: Tensor,
    norm: nn.Module | None = None,
    features: tuple[Tensor, Tensor] | None = None,
) -> CompactNetwork:
    """Stem and classifier of a tiny network around its compact graph.

    Args:
        model: the network.
        stage: its graph.
        entering: numbers of the stem's nodes that are left.
        norm: what the stem's nodes meet first.
        features: numbers of the live and of the constant output nodes; None: all are live.
    """
    if features is None:
        features = torch.arange(model.feature_dim, device=entering.device), entering[:0]
    head = CompactHead(model.fc.weight, model.fc.bias, *features, centre)
    return CompactNetwork(_TinyStem(model.downsample, norm or nn.Identity(), entering), [stage], head)


def _entering(live: Liveness, count: int, device: torch.device) -> Tensor:
    """Numbers of the stem's nodes that the logits depend on."""
    return live.needed[:count].nonzero().flatten().to(device)


def _features(live: Liveness, device: torch.device) -> tuple[Tensor, Tensor]:
    """Numbers of the last outputs that depend on the image, and of those that are constant."""
    wanted, reached = live.outputs_needed, live.outputs_reached
    first, second = ((wanted & kind).nonzero().flatten().to(device) for kind in (reached, ~reached))
    return first, second
