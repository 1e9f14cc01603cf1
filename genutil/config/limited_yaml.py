"""PyYAML's safe loader with limits: no text can take unbounded memory, time or stack."""

from __future__ import annotations

from typing import Any

import yaml

_DEPTH = 50
_NODES = 10_000


class LimitedLoader(yaml.SafeLoader):
    """Reads plain YAML that is nested at most 50 deep and holds at most 10,000 values.

    Depth and number count aliases as if they were expanded: a few lines of nested aliases can represent
    billions of values.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._extents: dict[int, tuple[int, int]] = {}  # (values, depth) of each node that is read

    def compose_node(self, parent: Any, index: Any) -> Any:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        self._depth += 1
        self._check(
            len(self._extents), self._depth, mark
        )  # while it is read, before it fills memory or stack
        node = super().compose_node(parent, index)
        self._depth -= 1
        if id(node) not in self._extents:
            parts = [self._extents.get(id(part), (1, 1)) for part in _parts(node)]
            values, depth = (
                1 + sum(count for count, _ in parts),
                1 + max((below for _, below in parts), default=0),
            )
            self._extents[id(node)] = values, depth
        self._check(*self._extents[id(node)], mark)
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except Exception as error:  # PyYAML has no common type for `!!bool x`, `!!timestamp x` or 2026-99-99
            problem = f"{str(node.value)[:80]!r} is not a value of type {node.tag}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from error

    @staticmethod
    def _check(values: int, depth: int, mark: Any) -> None:
        if depth > _DEPTH:
            problem = f"it is nested more than {_DEPTH} deep"
        elif values > _NODES:
            problem = f"it holds more than {_NODES:,} values, aliases written out"
        else:
            return
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def load_yaml(text: str) -> Any:
    """`yaml.safe_load` with these limits.

    Raises:
        ValueError: it is not plain YAML, or exceeds a limit.
    """
    loader = LimitedLoader(text)
    try:
        return loader.get_single_data()
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    finally:
        loader.dispose()


def _parts(node: Any) -> list[Any]:
    """The nodes that a node holds. An alias to a node that is not read to its end counts once."""
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
