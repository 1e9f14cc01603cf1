"""Choosing devices, before and after torch is there."""

import logging

import pytest
import torch

from genutil.devices import algorithms, choose_device, prepare_determinism, select_gpus
from genutil.distributed.rank_info import RankInfo
from genutil.exceptions import ConfigError


@pytest.mark.parametrize(
    ("gpus", "offered", "visible"),
    [
        (None, None, None),
        (None, "3", "3"),
        ([0, 2], None, "0,2"),
        ([], None, ""),
        ([], "4,5", ""),
        ([1], "4,5", "5"),
        ([0, 1], "GPU-a, GPU-b", "GPU-a,GPU-b"),
    ],
)
def test_cuda_sees_the_chosen_devices(gpus, offered, visible):
    environment = {} if offered is None else {"CUDA_VISIBLE_DEVICES": offered}
    select_gpus(gpus, environment)
    assert environment.get("CUDA_VISIBLE_DEVICES") == visible


def test_a_device_that_the_cluster_did_not_grant():
    with pytest.raises(ConfigError, match="gpus: 2 is not among the 2 devices of CUDA_VISIBLE_DEVICES=4,5"):
        select_gpus([0, 2], {"CUDA_VISIBLE_DEVICES": "4,5"})


def test_without_cuda_it_warns_once_and_uses_the_cpu(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level(logging.WARNING):
        assert choose_device([0], None, RankInfo()).type == "cpu"
        assert len(caplog.records) == 1
        assert choose_device(None, None, RankInfo()).type == choose_device([], None, RankInfo()).type == "cpu"
        assert len(caplog.records) == 1


def test_with_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert (
        choose_device([1], None, RankInfo())
        == choose_device(None, None, RankInfo())
        == torch.device("cuda", 0)
    )
    assert choose_device([], None, RankInfo()).type == choose_device(None, 2, RankInfo()).type == "cpu"
    second = RankInfo(rank=5, size=8, local_rank=1, local_size=2)
    assert choose_device([0, 1], None, second) == torch.device("cuda", 1)
    with pytest.raises(
        ConfigError, match="gpus: 4 processes were started on this machine, but it has 2 GPUs"
    ):
        choose_device(None, None, RankInfo(rank=0, size=4, local_rank=0, local_size=4))


@pytest.mark.parametrize("deterministic", [True, False])
def test_algorithms_are_chosen_for_a_while(deterministic):
    def settings():
        return torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark

    before = settings()
    with algorithms(deterministic):
        assert settings() == (deterministic, not deterministic)
        assert torch.utils.deterministic.fill_uninitialized_memory is False
    assert settings() == before
    with pytest.raises(ValueError), algorithms(deterministic):
        raise ValueError
    assert settings() == before


def test_a_workspace_that_the_user_chose_stays():
    environment = {}
    prepare_determinism(environment)
    assert environment["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    environment["CUBLAS_WORKSPACE_CONFIG"] = ":16:8"
    prepare_determinism(environment)
    assert environment["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
