"""Multiply-accumulates of any network, counted in a forward pass of one image.

All convolutions and matrix products that torch executes are counted: those of layers, under a
parametrization, or of functions in a forward method. Elementwise operations (norms, activations, masks) are
not counted.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from wirings.rng import preserve_rng_state
from wirings.rules.base import EdgeRule

_aten = torch.ops.aten


def _convolution(args: Sequence[Any], out: Tensor) -> int:
    images, weight, transposed = args[0], args[1], args[6]
    positions = (images if transposed else out).shape[2:].numel()
    return int(len(images) * positions * weight.numel())


def _matrices(first: int) -> Callable[[Sequence[Any], Any], int]:
    """(…, rows, inner) times (…, inner, columns): the arguments `first` and `first + 1`."""
    return lambda args, _out: int(args[first].numel() * args[first + 1].shape[-1])


def _matrix_and_vector(first: int) -> Callable[[Sequence[Any], Any], int]:
    return lambda args, _out: int(args[first].numel())


def _recurrent(inputs: Tensor, weights: Sequence[Tensor]) -> int:
    """Every weight matrix once per step of each sequence."""
    steps = inputs.numel() // inputs.shape[-1]
    return int(steps * sum(weight.numel() for weight in weights if weight.dim() == 2))


_PRODUCTS: dict[Any, Callable[[Sequence[Any], Any], int]] = {
    _aten.convolution: _convolution,
    _aten._convolution: _convolution,
    _aten.mm: _matrices(0),
    _aten.bmm: _matrices(0),
    _aten.addmm: _matrices(1),
    _aten.baddbmm: _matrices(1),
    _aten.addbmm: _matrices(1),
    _aten.mv: _matrix_and_vector(0),
    _aten.addmv: _matrix_and_vector(1),
    _aten.dot: _matrix_and_vector(0),
    _aten._trilinear: lambda args, _out: int(len(args[0]) * args[1].numel()),  # of nn.Bilinear
    _aten.mkldnn_rnn_layer: lambda args, _out: _recurrent(args[0], args[1:3]),
    _aten._cudnn_rnn: lambda args, _out: _recurrent(args[0], args[1]),
}
"""MACs of each operation, from its positional arguments and its result."""


def count_macs(model: nn.Module, image: Tensor) -> dict[str, int]:
    """MACs of one forward pass in evaluation mode, by the name of the innermost module that computes them.

    A module that selects its weights (`in_use()`) counts the selected fraction, also if a parent multiplies
    with the weights of an edge rule. Operations on weights (parametrizations, pre-hooks such as spectral
    norm's) are not counted, since they do not depend on the image. Attention is counted as its matrix
    products. Compiled networks run eagerly here.

    Training modes, buffers and random number generators are restored afterwards.

    Args:
        model: the network.
        image: (1, channels, height, width), on its device.
    """
    names = {module: name for name, module in model.named_modules()}
    counter = _Counter()
    handles = [handle for module, name in names.items() for handle in _watch(module, name, counter)]
    try:
        with _preserve_state(model), _plain_operations(), torch.no_grad(), counter:
            model.eval()(image)
    finally:
        for handle in handles:
            handle.remove()
    return {name: _selected(module, counter.macs[name]) for module, name in names.items()}


def _selected(module: nn.Module, macs: int) -> int:
    """The MACs of the module's selected weights."""
    in_use: Callable[[], Tensor] | None = getattr(module, "in_use", None)
    if in_use is None or not macs:
        return macs
    mask = in_use()
    return macs * int(mask.sum()) // mask.numel()


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Context that counts the products run in it.

    Attributes:
        macs: by module name.
        running: names of the modules whose forward methods run, the innermost last; None for modules that
            compute weights.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs: Counter[str] = Counter()
        self.running: list[str | None] = [""]
        self._rules: dict[int, str] = {}
        self._weights: list[Tensor] = []

    def register_weights(self, name: str, weights: Tensor) -> None:
        """Count products with these weights, or with views of them, for the edge rule of this name."""
        self._weights.append(weights)  # so that its memory is not reused for another tensor
        self._rules[weights.untyped_storage().data_ptr()] = name

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        product = _PRODUCTS.get(func.overloadpacket)
        if product is None:
            with self:  # in inference mode a composite operation, such as linear, is not decomposed before
                out = func.decompose(*args, **(kwargs or {}))
            if out is not NotImplemented:
                return out
        out = func(*args, **(kwargs or {}))
        name = self.running[-1]
        if product is not None and name is not None:
            self.macs[self._owner(args, name)] += product(args, out)
        return out

    def _owner(self, args: Sequence[Any], running: str) -> str:
        for value in args:
            if isinstance(value, Tensor):
                name = self._rules.get(value.untyped_storage().data_ptr())
                if name is not None:
                    return name
        return running


def _watch(module: nn.Module, name: str, counter: _Counter) -> Iterator[Any]:
    """Hooks that report the running module to the counter."""
    if isinstance(module, torch.jit.ScriptModule):
        return  # has no hooks: its products are counted for the module that calls it
    computes_weights = isinstance(module, EdgeRule) or "parametrizations" in name.split(".")

    def enter(_module: nn.Module, _inputs: object) -> None:
        counter.running.append(None)

    def start(_module: nn.Module, _inputs: object) -> None:
        counter.running[-1] = None if computes_weights else name

    def leave(_module: nn.Module, _inputs: object, output: object) -> None:
        counter.running.pop()
        if isinstance(module, EdgeRule) and isinstance(output, Tensor) and output.numel():
            counter.register_weights(name, output)

    yield module.register_forward_pre_hook(enter, prepend=True)
    yield module.register_forward_pre_hook(start)
    yield module.register_forward_hook(leave)


@contextlib.contextmanager
def _preserve_state(model: nn.Module) -> Iterator[None]:
    """Context that restores training modes, buffers and random number generators at exit."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and not is_lazy(buffer)
    ]
    try:
        with preserve_rng_state():
            yield
    finally:
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for module, name, buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)
                module._buffers[name] = buffer


@contextlib.contextmanager
def _plain_operations() -> Iterator[None]:
    """Context in which compiled modules run eagerly, and attention as separate matrix products."""
    fastpath_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.compiler.set_stance("force_eager"), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath_enabled)
