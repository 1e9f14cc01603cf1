"""Free memory as machines and control groups give it, and what is refused for lack of it."""

import pytest
import torch

from genutil.exceptions import ConfigError
from genutil.memory import (
    available_memory,
    gibibytes,
    memory_errors_explained,
    require_memory,
    require_memory_for_training,
    sizes_checked,
)

GIB = 1024**3


@pytest.fixture
def machine(tmp_path):
    """Writes the files of a machine with 8 GiB, of which 3 are free, and 1 of swap."""

    def write(folder=None, **files):
        (tmp_path / "proc").mkdir(exist_ok=True)
        meminfo = (
            f"MemTotal: {8 * 2**20} kB\nMemAvailable: {3 * 2**20} kB\nSwapFree: {2**20} kB\nHugePages: 0\n"
        )
        (tmp_path / "proc/meminfo").write_text(meminfo)
        if folder is not None:
            group = tmp_path / folder
            group.mkdir(parents=True)
            for name, text in files.items():
                (group / name.replace("__", ".")).write_text(text)
        return tmp_path

    return write


def test_the_memory_of_a_machine(machine, tmp_path):
    assert available_memory(tmp_path) is None  # not a Linux
    assert available_memory(machine()) == 4 * GIB


def test_a_control_group_limits_it(machine):
    stat = f"anon 5\ninactive_file {GIB}\n"
    files = {"memory__max": f"{2 * GIB}", "memory__current": f"{3 * GIB // 2}", "memory__stat": stat}
    assert available_memory(machine("sys/fs/cgroup", **files)) == 3 * GIB // 2


def test_a_control_group_of_the_first_version(machine):
    stat = "total_inactive_file 0\n"
    files = {"memory__limit_in_bytes": f"{2 * GIB}", "memory__usage_in_bytes": f"{GIB}", "memory__stat": stat}
    assert available_memory(machine("sys/fs/cgroup/memory", **files)) == GIB


def test_a_control_group_without_a_limit(machine):
    files = {"memory__max": "max\n", "memory__current": "1", "memory__stat": "inactive_file 0\n"}
    assert available_memory(machine("sys/fs/cgroup", **files)) == 4 * GIB


def test_what_does_not_fit_is_refused():
    require_memory("a", GIB, "b", lambda: GIB)
    require_memory("a", GIB, "b", lambda: None)
    with pytest.raises(ConfigError, match=r"^dim: 3 needs 2 GiB, and 1 GiB are free; choose less$"):
        require_memory("dim: 3", 2 * GIB, "choose less", lambda: GIB)
    assert gibibytes(335 * GIB + 5) == "335 GiB"
    assert gibibytes(10**400) == "more than 10^15 GiB"


SIZES = {"dim": 10**9, "layers": 5}


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.nn.Conv2d(10**9, 10**3, 1),
        lambda: torch.nn.Linear(10**3, 10**9),
        lambda: torch.zeros((10**9, 10**3)),
        lambda: torch.rand(10**9, 10**6),
        lambda: torch.full((10**9, 10**6), 1.0),
        lambda: torch.empty(size=(10**9, 10**6), dtype=torch.bool, device="cpu"),
    ],
)
def test_a_tensor_is_refused_before_it_is_made(make):
    message = r"^dim: 1000000000: a tensor of .* numbers needs .* GiB are free"
    with pytest.raises(ConfigError, match=message), sizes_checked("model: x:Y", lambda: SIZES):
        make()


def test_a_size_that_no_key_has_is_named_with_all_of_them():
    message = r"^model: x:Y with dim 1000000000, layers 5: a tensor of 5 × "
    with pytest.raises(ConfigError, match=message), sizes_checked("model: x:Y", lambda: SIZES):
        torch.ones(5, 10**14)


@pytest.mark.parametrize(
    "fail",
    [
        lambda: torch.empty(2**61),
        lambda: torch.empty(10**12).expand(10**6, -1).clone(),
        lambda: torch.zeros(1).expand(2**62).contiguous(),
        lambda: torch.zeros(2).repeat(10**15),
        lambda: [0] * 10**18,
        lambda: __import__("numpy").ones((10**9, 10**7)),
        lambda: int(float("inf")),
    ],
)
def test_an_allocation_that_fails_is_explained(fail):
    with (
        pytest.raises(
            ConfigError, match=r"^a step needs more memory than there is .*; choose smaller sizes$"
        ),
        memory_errors_explained(lambda: "a step"),
    ):
        fail()


def test_other_errors_pass_through():
    for error in (RuntimeError("mat1 and mat2"), ValueError("x"), TypeError("y")):
        with pytest.raises(type(error)) as caught, memory_errors_explained(lambda: "a step"):
            raise error
        assert caught.value is error


def test_random_numbers_are_the_same_while_sizes_are_checked():
    torch.manual_seed(0)
    alone = torch.nn.Linear(30, 40).weight
    torch.manual_seed(0)
    with sizes_checked("x", dict):
        assert torch.equal(torch.nn.Linear(30, 40).weight, alone)


def test_gradients_and_momenta_need_room(monkeypatch):
    model = torch.nn.Linear(10_000, 10_000, device="meta")  # 0.37 GiB
    monkeypatch.setattr("genutil.memory.require_memory", lambda *given: require_memory(*given, lambda: GIB))
    require_memory_for_training(model, "x:Y", has_momentum=True, processes=1)
    with pytest.raises(ConfigError, match=r"model: training x:Y, in addition to its weights, needs 1.5 GiB"):
        require_memory_for_training(model, "x:Y", has_momentum=True, processes=2)
