"""Which process this one is, and which part of the work it takes."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

import runner
from genutil.config import load_config
from genutil.distributed.launch import processes_to_start
from genutil.distributed.rank_info import RankInfo, check_batch_size, rank_info_from_env, shard_slice
from genutil.exceptions import ConfigError
from tests.conftest import ROOT

APP = ROOT / "apps/quickstart/digits_dnw.yml"


def test_a_process_that_nobody_launched():
    assert rank_info_from_env({}) is None
    assert rank_info_from_env({"RANK": "0"}) is None


def test_the_launcher_tells_the_place():
    place = rank_info_from_env(
        {
            "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4",
            "TORCHELASTIC_RESTART_COUNT": "1", "TORCHELASTIC_MAX_RESTARTS": "3",
            "TORCHELASTIC_RUN_ID": "night",
        }
    )  # fmt: skip
    assert (place.rank, place.size, place.local_rank, place.local_size) == (5, 8, 1, 4)
    assert (place.restarts, place.restarts_left) == (1, 2)
    assert place.run_id.startswith("night-")
    assert place.run_id.endswith(f"-{os.getppid()}")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": ""}, "RANK: must be a whole number, got '' in the environment"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE: must be a whole number, got ''"),
        ({"RANK": "first"}, "RANK: must be a whole number, got 'first'"),
        ({"RANK": "-1"}, "RANK: must be a whole number"),
        ({"RANK": "2"}, "RANK: must be less than WORLD_SIZE, got 2 and 2"),
        ({"WORLD_SIZE": "0"}, "RANK: must be less than WORLD_SIZE"),
        ({"LOCAL_RANK": "1.5"}, "LOCAL_RANK: must be a whole number"),
        ({"LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "2"}, "LOCAL_RANK: must be less than LOCAL_WORLD_SIZE"),
        ({"TORCHELASTIC_MAX_RESTARTS": "many"}, "TORCHELASTIC_MAX_RESTARTS: must be a whole number"),
    ],
)
def test_variables_that_no_launcher_sets(variables, message, monkeypatch, capsys):
    environment = {"RANK": "0", "WORLD_SIZE": "2", **variables}
    with pytest.raises(ConfigError, match=message):
        rank_info_from_env(environment)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert runner.main(["app:x.yml"]) == 2
    assert capsys.readouterr().err.startswith(message)


@given(count=st.integers(0, 300), size=st.integers(1, 20))
def test_shares_hold_every_image_once_and_are_even(count, size):
    shares = [range(count)[shard_slice(count, rank, size)] for rank in range(size)]
    assert [image for some in shares for image in some] == list(range(count))
    lengths = [len(some) for some in shares]
    assert lengths == sorted(lengths, reverse=True)
    assert max(lengths) - min(lengths) <= 1


def test_a_batch_that_cannot_be_shared():
    check_batch_size(12, 3, 2)
    with pytest.raises(
        ConfigError, match=r"batch_size: 512 images cannot be split evenly among 3 .* such as 510 or 513"
    ):
        check_batch_size(512, 3, 1)
    with pytest.raises(
        ConfigError, match=r"2 processes with accumulate 4; it must be a multiple of 8, such as 8$"
    ):
        check_batch_size(2, 2, 4)


@pytest.mark.parametrize(
    ("keys", "count"),
    [
        ({}, None),
        ({"processes": 1}, None),
        ({"processes": 4}, 4),
        ({"max_restarts": 2}, 1),
        ({"gpus": [0]}, None),
        ({"gpus": [0, 1, 2, 3]}, 4),
        ({"gpus": [0, 1, 2], "evaluate": True, "resume": "x.pt"}, 3),
    ],
)
def test_how_many_processes_are_started(keys, count, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert processes_to_start(load_config(APP, keys)) == count


def test_without_cuda_several_gpus_are_one_process(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert processes_to_start(load_config(APP, {"gpus": [0, 1]})) is None


def test_what_is_refused_before_anything_is_started(monkeypatch):
    with pytest.raises(ConfigError, match="batch_size: 64 images"):
        processes_to_start(load_config(APP, {"processes": 3, "batch_size": 64}))
    with pytest.raises(ConfigError, match="accumulate 5"):
        processes_to_start(load_config(APP, {"accumulate": 5, "batch_size": 64}))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    with pytest.raises(ConfigError, match="gpus: 3 is not among the 2 devices"):
        processes_to_start(load_config(APP, {"gpus": [0, 3]}))
    with pytest.raises(ConfigError, match="processes: run on the CPU; on GPUs there is one process for each"):
        load_config(APP, {"processes": 2, "gpus": [0, 1]})
    with pytest.raises(ConfigError, match="sync_bn: communicates within the forward pass"):
        load_config(APP, {"sync_bn": True, "compile": True})


def test_torchrun_has_the_last_word(monkeypatch, caplog):
    for name, value in {"RANK": "0", "WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    assert processes_to_start(load_config(APP, {"max_restarts": 2})) is None
    assert "max_restarts has no effect under torchrun; give torchrun --max-restarts" in caplog.text
    with pytest.raises(
        ConfigError, match="processes: 2 does not match the 3 processes that torchrun started"
    ):
        processes_to_start(load_config(APP, {"processes": 2}))


def test_a_place_of_its_own_is_the_first_of_one():
    assert RankInfo() == RankInfo(rank=0, size=1, local_rank=0, local_size=1)
