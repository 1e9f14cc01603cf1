"""Modules that keep what they have derived from their weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import nn


class Deriving(nn.Module, ABC):
    """Forgets what it derived when its weights are loaded, moved or cast; copies and pickles are without it.

    Attributes:
        derived: names of the attributes that `forget` sets.
    """

    derived: ClassVar[tuple[str, ...]]

    def __init__(self) -> None:
        super().__init__()
        self.forget()
        self.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]

    @abstractmethod
    def forget(self) -> None:
        """Set all that is derived to its beginning."""

    def _apply(self, fn: Any, recurse: bool = True) -> Deriving:
        self.forget()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in self.derived}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.forget()


def _forget(module: nn.Module, keys: object) -> None:
    assert isinstance(module, Deriving)
    module.forget()
