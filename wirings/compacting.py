"""A trained network without its dead nodes or channels: for evaluation only, with the same logits."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wirings import engines
from wirings.channel_report import ChannelReport
from wirings.channels import copy_network, remove_dead_channels
from wirings.compact_network import (
    CompactHead,
    CompactNetwork,
    CompactStage,
    ConvStem,
    MakeProduct,
    ModuleStem,
    compact_stem,
)
from wirings.cycles import compact_cycle
from wirings.engines import find_engine
from wirings.engines.dense import DenseProduct
from wirings.errors import WiringError
from wirings.folding import fold_norms
from wirings.images import black_image, image_shape
from wirings.layers import WiredLayer
from wirings.native import NativeNetwork, load_kernels
from wirings.plan import StagePlan, check_stages, plan_stage
from wirings.structure import (
    AcyclicStructure,
    CyclicStructure,
    FoldableNorms,
    Structure,
    describes_forward,
    structure_of,
)
from wirings.wiring import Wiring, unwire
from wirings.wrappers import EvaluationNetwork

_log = logging.getLogger(__name__)
_EXAMPLE = "a batch of its inputs, by which its dead channels are found"


class NoCompactForm(WiringError):
    """The network neither describes its structure nor can be traced with an example."""


def compact(
    model: nn.Module, engine: str = "auto", bf16: bool = False, example: Tensor | None = None
) -> nn.Module:
    """A new, smaller network with the logits of `model` in evaluation mode.

    Nodes without a path to the logits are removed. In acyclic graphs, nodes without a path from the image are
    constants: they are computed once per image size and added as a bias. In continuous time all nodes stay,
    since the solver's step size may depend on every node. Batch norms are folded into weights.

    "MobileNet graph" below means every acyclic structure with a 3×3 convolution as stem, strides of 1 and 2,
    batch norms, and the mean of each rectified map as pooling.

    In a network without a structure whose layers `wire` has wired, dead channels are removed as far as its
    graph of operations is known: see wirings.channels. A report is logged and is the attribute `report` of
    the result; it lists the layers, and why channels stay. With an `example` this works for any other
    network, whose weights other than zero are then the edges in use.

    Args:
        model: a network with a method `structure()`, see wirings.structure, or one with wired layers; it is
            not changed.
        engine: `native`, `dense`, `csr`, `triton` or `dgl`. `auto` takes the fastest: on the CPU `native`
            for a MobileNet graph in float32 if there is a C++ compiler, else the faster of dense and csr for
            each product; on a GPU the faster of dense and triton, measured there. It has no effect on a
            network without wiring.
        bf16: store the classifier's weights in 16 bits (native engine), or all maps (Triton, and with `auto`
            on a GPU also dense products); sums are in 32 bits. Only for MobileNet graphs; other networks and
            engines warn that it has no effect.
        example: a batch of inputs, for networks without a structure; by default, for wired networks, a black
            image by the network's `image_size` and the channels of its first convolution.

    Raises:
        NoCompactForm: the network describes no structure, and its layers are not wired, or the shape of its
            inputs is not known; an `example` is needed then.
        WiringError: it does not run on the example, its description contradicts itself, there is no such
            engine, or the engine cannot run here.
        MissingPackageError: the engine's library or compiler is not installed.
    """
    make = find_engine(engine)
    model = _unwrapped(model)
    device = next(model.parameters(), torch.empty(0)).device
    if engine == "native" and device.type != "cpu":
        raise WiringError(f"engine native runs on the CPU, and the network is on {device}")
    structure = _known_structure(model)
    if structure is None:
        if engine not in ("auto", "dense"):
            _log.warning("engine %s has no effect on a network without structure(): torch runs it", engine)
        if bf16:
            _warn_about_bf16()
        small, report = without_dead_channels(model, example)
        _log.log(logging.WARNING if report.reason else logging.INFO, "%s", report)
        return small
    with _evaluation_mode(model), torch.no_grad():
        if isinstance(structure, AcyclicStructure):
            return _compact_stages(structure, make, engine, bf16)
        if bf16:
            _warn_about_bf16()
        if isinstance(structure, CyclicStructure):
            return compact_cycle(structure, make)
        if engine not in ("auto", "dense"):
            _log.warning("engine %s has no effect on a network without wiring", engine)
        return fold_norms(model, structure.pairs)


def without_dead_channels(
    model: nn.Module, example: Tensor | None = None
) -> tuple[EvaluationNetwork, ChannelReport]:
    """`compact` of a network without a structure, and the report of its channels; nothing is logged.

    Raises:
        NoCompactForm, WiringError: see `compact`.
    """
    model = _unwrapped(model)
    is_wired = any(isinstance(module, WiredLayer) for module in model.modules())
    if example is None:
        example = _default_example(model, is_wired)
    plain, masks = model, {}
    if is_wired:
        plain = copy_network(model).eval()
        masks = Wiring(plain).adjacency()
        unwire(plain)
    for name, value in plain.state_dict().items():
        if isinstance(value, Tensor) and value.dim() > 1:
            used = value != 0
            masks[name] = used | masks[name] if name in masks else used
    return remove_dead_channels(plain, example, masks)


def engines_of(network: nn.Module) -> str:
    """Names of the engines in a compact network, for reports: `native`, or `csr, dense` if there are both."""
    if isinstance(network, NativeNetwork):
        return "native"
    modules = {type(module).__module__ for module in network.modules()}
    package = f"{engines.__name__}."
    names = sorted(name.removeprefix(package) for name in modules if name.startswith(package))
    return ", ".join(names) or "dense"


def _unwrapped(model: nn.Module) -> nn.Module:
    """The network inside of wrappers of torch.compile and for several devices."""
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        inner = model._modules.get("module" if isinstance(model, parallel) else "_orig_mod")
        if inner is None:
            return model
        model = inner


def has_structure(model: nn.Module) -> bool:
    """Whether the network describes its forward pass, so that `compact` needs no example of its inputs.

    Raises:
        WiringError: the description is none of the structures of wirings.structure.
    """
    return _known_structure(model) is not None


def _known_structure(model: nn.Module) -> Structure | None:
    """The structure of the network; None: there is none, or it is not that of the forward pass.

    Raises:
        WiringError: the description is none of the structures.
    """
    structure = structure_of(model)
    if structure is None or not describes_forward(model):
        return None
    if not isinstance(structure, (AcyclicStructure, CyclicStructure, FoldableNorms)):
        raise WiringError(
            f"{type(model).__name__}.structure() must return one of the structures of wirings.structure, "
            f"got {type(structure).__name__}"
        )
    return structure


def _default_example(model: nn.Module, is_wired: bool) -> Tensor:
    name = type(model).__name__
    if not is_wired:
        if structure_of(model) is not None:
            reason = "it overrides forward(), but not structure()"
            raise NoCompactForm(f"{name} has no compact form: {reason}; or give an example, {_EXAMPLE}")
        raise NoCompactForm(
            f"{name} has no compact form; a network has one if its method structure() describes it, see "
            f"wirings.structure, or with an example, {_EXAMPLE}"
        )
    shape = image_shape(model)
    if shape is None:
        raise NoCompactForm(
            f"the shape of the inputs of {name} is not known; give an example, {_EXAMPLE}, or set its "
            "attribute image_size"
        )
    return black_image(model, shape)


@dataclass(frozen=True)
class NetworkPlan:
    """Plan of a network of stages without dead nodes, independent of the engine."""

    stem: ConvStem | ModuleStem
    stages: Sequence[StagePlan]
    head: CompactHead

    def network(self, make: MakeProduct, maps_type: torch.dtype | None = None) -> CompactNetwork:
        """The network with products of one engine; see CompactStage."""
        stages = [CompactStage(plan, make, maps_type) for plan in self.stages]
        return CompactNetwork(self.stem, stages, self.head)


def plan_network(structure: AcyclicStructure) -> NetworkPlan:
    """The live and the constant nodes of all stages.

    Args:
        structure: of a network in evaluation mode.
    """
    check_stages(structure)
    stages, liveness = structure.stages, structure.liveness()
    device = stages[0].rule.weight.device
    entering, last = stages[0].groups[0], liveness[-1]
    norms = [*(stage.groups[0].norm for stage in stages[1:]), structure.norm]
    plans = [plan_stage(*arguments) for arguments in zip(stages, liveness, norms, strict=True)]
    nodes, live, constant = (
        mask.nonzero().flatten().to(device)
        for mask in (
            liveness[0].needed[entering.columns],
            last.outputs_needed & last.outputs_reached,
            last.outputs_needed & ~last.outputs_reached,
        )
    )
    stem = compact_stem(structure.stem, entering.norm, nodes)
    return NetworkPlan(stem, plans, CompactHead(structure.classifier, live, constant, structure.pool))


def _compact_stages(structure: AcyclicStructure, make: MakeProduct, engine: str, bf16: bool) -> nn.Module:
    plan = plan_network(structure)
    dense = plan.network(DenseProduct)
    weight = dense.head.weight
    if dense.is_mobilenet_graph:
        if engine in ("native", "auto") and _native_runs(weight.device, weight.dtype, engine):
            return NativeNetwork(dense, bf16)
        if bf16 and (engine == "triton" or (engine == "auto" and weight.device.type == "cuda")):
            return plan.network(make, torch.bfloat16)
    if bf16:
        _warn_about_bf16()
    return plan.network(make)


def _native_runs(device: torch.device, dtype: torch.dtype, engine: str) -> bool:
    """Whether the native kernels can run a whole network here."""
    if device.type != "cpu":
        return False
    if dtype != torch.float32:
        if engine == "native":
            raise WiringError(f"engine native computes in float32, and the network is in {dtype}")
        return False
    try:
        load_kernels()
    except WiringError as error:
        if engine == "native":
            raise
        _log.warning("engine auto runs on torch's products, which are slower: %s", error)
        return False
    return True


def _warn_about_bf16() -> None:
    _log.warning("bf16 has no effect: only whole MobileNet graphs on the engines native and triton have it")


@contextlib.contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
