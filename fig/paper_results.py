"""Results as published, by the name of the experiment file.

Source: Wortsman, Farhadi, Rastegari, "Discovering Neural Wirings", NeurIPS 2019, tables 1 to 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from genutil.config import load_config
from genutil.config.identity import differences_without_seed
from genutil.runs.run_folder import run_settings

_APPS = Path(__file__).resolve().parent.parent / "apps"
_FOLDERS = ("small_scale", "medium_scale", "large_scale")


class Published(NamedTuple):
    """A published result.

    Attributes:
        top1: accuracy in percent.
        std: standard deviation over `runs`; None: not published.
        runs: number of averaged runs.
        epochs: of a run.
        macs: multiply-accumulates of an image, in millions; None: not published.
    """

    top1: float
    std: float | None
    runs: int
    epochs: int
    macs: float | None = None

    def __str__(self) -> str:
        return f"{self.top1}" if self.std is None else f"{self.top1} ± {self.std}"


def _tiny(top1: float, std: float) -> Published:
    return Published(top1, std, 5, 160)


def _imagenet(top1: float, macs: float) -> Published:
    return Published(top1, None, 1, 250, macs)


PUBLISHED: dict[str, Published] = {
    "static_random_graph": _tiny(76.1, 0.5),
    "static_dnw": _tiny(80.9, 0.6),
    "discrete_time_random_graph": _tiny(77.3, 0.7),
    "discrete_time_dnw": _tiny(82.3, 0.6),
    "continuous_time_random_graph": _tiny(78.5, 1.2),
    "continuous_time_dnw": _tiny(83.1, 0.3),
    "mobilenetv1_x25": _tiny(86.3, 0.2),
    "mobilenetv1_random_graph_x225 (CIFAR-10)": _tiny(87.2, 0.1),
    "mobilenetv1_dnw_no_update_x225": _tiny(86.7, 0.5),
    "mobilenetv1_td_x225": _tiny(89.2, 0.4),
    "mobilenetv1_lottery_one_shot_x225": _tiny(87.9, 0.3),
    "mobilenetv1_ft_x225": _tiny(89.7, 0.1),
    "mobilenetv1_dnw_x225 (CIFAR-10)": _tiny(89.7, 0.2),
    "mobilenetv1_random_graph_x225": _imagenet(53.3, 55.7),
    "mobilenetv1_random_graph_x49": _imagenet(64.1, 170),
    "mobilenetv1_dnw_small_x15": _imagenet(50.3, 22.1),
    "mobilenetv1_dnw_small_x225": _imagenet(59.9, 41.2),
    "mobilenetv1_dnw_x225": _imagenet(60.9, 42.1),
    "mobilenetv1_dnw_x3": _imagenet(65.0, 66.7),
    "mobilenetv1_dnw_x49": _imagenet(70.4, 154),
}
"""Two names belong to two experiments each: those on CIFAR-10 say so."""

OTHERS = {
    "MobileNetV1": ((41, 50.6), (149, 63.7)),
    "ShuffleNetV2": ((41, 60.3), (146, 69.4)),
}
"""Other networks on ImageNet: (millions of MACs, top-1)."""

KEPT = (10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
SPARSE_RESNET50 = {
    "all layers sparse": (74.026, 76.158, 76.904, 77.290, 77.528, 77.536, 77.604, 77.610, 77.488, 77.510),
    "first layer dense": (75.044, 76.600, 77.076, 77.456, 77.570, 77.564, 77.492, 77.284, 77.382, 77.510),
    "sparse from scratch": (72.9, 74.9, 75.9),
    "RigL (ERK)": (73.0, 75.1),
}
"""Top-1 of ResNet-50 on ImageNet by per cent of weights kept (KEPT, up to the last published one)."""


def find_published(name: str, data: str) -> Published | None:
    """The published result of an experiment; None: there is none.

    Args:
        name: of its file.
        data: its data set, as module:Class.
    """
    if data.endswith(":CIFAR10"):
        return PUBLISHED.get(f"{name} (CIFAR-10)") or PUBLISHED.get(name)
    return PUBLISHED.get(name) if data.endswith(":ImageNet") else None


def other_settings(name: str, config: Mapping[str, Any]) -> list[str]:
    """The keys in which a run differs from the published experiment's file, in `apps/`.

    Paths of other checkpoints are not compared, only whether there is one.

    Args:
        name: of the experiment file.
        config: of the run.
    """
    for path in (_APPS / folder / f"{name}.yml" for folder in _FOLDERS):
        if not path.is_file():
            continue
        published = run_settings(load_config(path)).values
        if published["data"] == config["data"]:
            differences = differences_without_seed(published, config)
            return [
                key for key, pair in differences.items() if key != "topk" and not _are_checkpoints(key, pair)
            ]
    return []


def _are_checkpoints(key: str, pair: tuple[Any, Any]) -> bool:
    return key in ("use_graph", "use_init") and None not in pair
