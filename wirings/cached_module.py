"""Modules with a cache of results that depend on their weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import nn


class CachedModule(nn.Module, ABC):
    """A module whose cache is reset when weights are loaded, moved or cast, and is not copied or pickled.

    Attributes:
        cached_attributes: names of the attributes that `reset_cache` sets.
    """

    cached_attributes: ClassVar[tuple[str, ...]]

    def __init__(self) -> None:
        super().__init__()
        self.reset_cache()
        self.register_load_state_dict_post_hook(_reset_cache)  # type: ignore[no-untyped-call]

    @abstractmethod
    def reset_cache(self) -> None:
        """Set all cached attributes to their initial values."""

    def _apply(self, fn: Any, recurse: bool = True) -> CachedModule:
        self.reset_cache()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in self.cached_attributes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.reset_cache()


def _reset_cache(module: nn.Module, keys: object) -> None:
    assert isinstance(module, CachedModule)
    module.reset_cache()
