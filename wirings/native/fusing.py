"""Fewer operations with the same results: activations and sums of two tensors become part of the operation
before them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from wirings.native.operations import Activation, Filters, Kind, Numbers, Operation

_CONVOLUTIONS = (Kind.SUM, Kind.DEPTHWISE, Kind.LINEAR)
_WITH_ACTIVATION = (
    Kind.SUM,
    Kind.DEPTHWISE,
    Kind.POOL,
    Kind.MEAN,
    Kind.AFFINE,
    Kind.COMBINE,
    Kind.LINEAR,
)


def fused(operations: list[Operation]) -> list[Operation]:
    """The operations after fusing, without those whose results are not read; those of the argument are
    changed.
    """
    return _fuse_filters(_fuse_activations(_fuse_additions(_fold_affine(_needed(operations)))))


def _needed(operations: list[Operation]) -> list[Operation]:
    """The operations on whose results an output depends, and all inputs."""
    read: set[int] = set()
    result = []
    for operation in reversed(operations):
        is_tensor = operation.kind in (Kind.IMPORT, Kind.EXPORT)
        if is_tensor or not read.isdisjoint(operation.targets.tolist()):
            result.append(operation)
            read.update(operation.reads().tolist())
    return result[::-1]


def _fold_affine(operations: list[Operation]) -> list[Operation]:
    """Affine functions of the results of a convolution become part of its weights."""
    uses = _uses(operations)
    producers: dict[int, Operation] = {}
    result = []
    for operation in operations:
        before = {id(producers[n]): producers[n] for n in operation.sources.tolist() if n in producers}
        if operation.kind == Kind.AFFINE and operation.activation == Activation.NONE and len(before) == 1:
            (producer,) = before.values()
            alone = all(uses[n] == 1 for n in producer.targets.tolist())
            if alone and np.array_equal(producer.targets, operation.sources):
                _scale(producer, operation)
                producers.update(dict.fromkeys(producer.targets.tolist(), producer))
                continue
        if operation.kind in _CONVOLUTIONS and operation.activation == Activation.NONE:
            producers.update(dict.fromkeys(operation.targets.tolist(), operation))
        result.append(operation)
    return result


def _scale(producer: Operation, affine: Operation) -> None:
    scale, shift = affine.weights, affine.biases
    assert scale is not None and shift is not None and producer.biases is not None
    producer.biases = producer.biases * scale + shift
    producer.targets = affine.targets
    if producer.bias_maps is not None:
        producer.bias_maps = producer.bias_maps * scale[:, None, None]
    if producer.edges is not None:
        edges = producer.edges
        producer.edges = replace(edges, weights=edges.weights * scale[edges.targets])
    if producer.weights is not None:
        producer.weights = producer.weights * scale.reshape(-1, *[1] * (producer.weights.ndim - 1))


def _uses(operations: list[Operation]) -> Counter[int]:
    """Number of operations that read each map."""
    uses: Counter[int] = Counter()
    for operation in operations:
        uses.update(operation.reads().tolist())
    return uses


def _fuse_additions(operations: list[Operation]) -> list[Operation]:
    """A sum over edges, and the sum of its result with other maps, become one sum, where the second was."""
    uses = _uses(operations)
    last = {int(operation.targets[0]): operation for operation in operations if len(operation.targets)}
    removed: set[int] = set()
    result = list(operations)
    for index, operation in enumerate(operations):
        if operation.kind != Kind.COMBINE or operation.multiplies or operation.others is None:
            continue
        if operation.other_size != operation.size or not len(operation.sources):
            continue
        if np.intersect1d(operation.sources, operation.others).size:
            continue
        pairs = ((operation.sources, operation.others), (operation.others, operation.sources))
        for own, others in pairs:
            producer = last.get(int(own[0]))
            if producer is None or id(producer) in removed or producer.kind != Kind.SUM:
                continue
            alone = np.array_equal(producer.targets, own) and all(uses[int(number)] == 1 for number in own)
            if not alone or producer.activation or producer.others is not None:
                continue
            producer.others, producer.other_size = others, operation.size
            producer.targets, producer.activation = operation.targets, operation.activation
            removed.add(id(producer))
            result[index] = producer
            break
    last_index = {id(operation): index for index, operation in enumerate(result)}
    return [operation for index, operation in enumerate(result) if last_index[id(operation)] == index]


def _fuse_activations(operations: list[Operation]) -> list[Operation]:
    uses = _uses(operations)
    producers: dict[int, Operation] = {}
    written: Counter[int] = Counter()
    for operation in operations:
        producers.update(dict.fromkeys(operation.targets.tolist(), operation))
        written.update(operation.targets.tolist())
    result = []
    for operation in operations:
        if _is_activation(operation) and _fuse(operation, producers, uses, written):
            producers.update(
                {int(n): producers[int(m)] for n, m in zip(operation.targets, operation.sources, strict=True)}
            )
            continue
        result.append(operation)
    return result


def _fuse_filters(operations: list[Operation]) -> list[Operation]:
    """Filters of the results of a sum become part of it, if nothing else reads those."""
    uses = _uses(operations)
    sums = {int(one.targets[0]): one for one in operations if one.kind == Kind.SUM and len(one.targets)}
    result = []
    for operation in operations:
        before = sums.get(int(operation.sources[0])) if operation.kind == Kind.DEPTHWISE else None
        if (
            before is not None
            and np.array_equal(before.targets, operation.sources)
            and all(uses[number] == 1 for number in before.targets.tolist())
        ):
            assert operation.weights is not None and operation.biases is not None
            before.filters = Filters(
                operation.weights, operation.biases, operation.stride, operation.activation
            )
            before.targets, before.target_size = operation.targets, operation.target_size
            continue
        result.append(operation)
    return result


def _is_activation(operation: Operation) -> bool:
    if operation.kind != Kind.AFFINE or operation.activation == Activation.NONE:
        return False
    assert operation.weights is not None and operation.biases is not None
    return bool((operation.weights == 1).all() and (operation.biases == 0).all())


def _fuse(
    operation: Operation, producers: dict[int, Operation], uses: Counter[int], written: Counter[int]
) -> bool:
    """Make an activation part of the operations whose results it reads, if nothing else reads them."""
    sources = operation.sources.tolist()
    before = {id(producers[number]): producers[number] for number in sources}
    for producer in before.values():
        targets = producer.targets.tolist()
        if producer.kind not in _WITH_ACTIVATION or producer.activation != Activation.NONE:
            return False
        if not set(targets) <= set(sources) or any(uses[n] != 1 or written[n] != 1 for n in targets):
            return False
    renamed: dict[int, int] = dict(zip(sources, operation.targets.tolist(), strict=True))
    if len(renamed) != len(sources):
        return False
    for producer in before.values():
        producer.targets = _renamed(producer.targets, renamed)
        producer.activation = operation.activation
    return True


def _renamed(numbers: Numbers, names: dict[int, int]) -> Numbers:
    return np.array([names[number] for number in numbers.tolist()], np.int64)
