"""Every option has an effect or is refused; defaults are the published ones."""

import pytest
import torch

import experiment
from data.imagenet import ImageFolders
from genutil.config import load_config
from genutil.config.identity import differences, identity
from genutil.distributed.rank_info import RankInfo
from genutil.exceptions import ConfigError, UserError
from imagenet_sparsity_experiments import main
from imagenet_sparsity_experiments.options import _keys, _parser, parse_options
from models.sparse_resnet import SparseResNet
from tests.conftest import ROOT
from tests.imagenet_sparsity_experiments.toy import make_images
from trainers.trainer import Trainer

DEFAULTS = {
    "data_backend": "pytorch", "arch": "resnet50", "model_config": "classic", "workers": 5, "epochs": 90,
    "start_epoch": 0, "batch_size": 256, "optimizer_batch_size": 256, "lr": 0.1, "lr_schedule": "step",
    "warmup": 0, "label_smoothing": 0.0, "mixup": 0.0, "momentum": 0.9, "weight_decay": 1e-4,
    "bn_weight_decay": False, "nesterov": False, "print_freq": 10, "resume": None, "pretrained_weights": None,
    "fp16": False, "dynamic_loss_scale": False, "prof": -1, "amp": None, "gather_checkpoints": False,
    "raport_file": "experiment_raport.json", "final_weights": "model.pth.tar", "evaluate": False,
    "training_only": False, "no_checkpoints": False, "workspace": "./",
}  # fmt: skip
SHORT = {
    "-a": "--arch",
    "-c": "--model-config",
    "-j": "--workers",
    "-b": "--batch-size",
    "-p": "--print-freq",
}


def parse(*argv):
    return parse_options(["imagenet", *map(str, argv)])


def test_published_defaults():
    values = parse().values
    assert {name: values[name] for name in DEFAULTS} == DEFAULTS
    assert values["data"] == "imagenet"


@pytest.mark.parametrize(("short", "long"), SHORT.items())
def test_short_names(short, long):
    value = {"-a": "resnet18", "-c": "dense"}.get(short, "7")
    assert parse(short, value) == parse(long, value) == parse(f"{long}={value}")


KEYS = {
    "data_backend": (["--data-backend", "dali-cpu"], {"data_backend": "dali-cpu"}),
    "workers": (["-j", 3], {"workers": 3}),
    "skip_corrupt": (["--skip-corrupt"], {"skip_corrupt": True}),
    "compile": (["--compile"], {"compile": True}),
    "channels_last": (["--channels-last"], {"channels_last": True}),
    "deterministic": (["--deterministic"], {"deterministic": True}),
    "timeout": (["--timeout", 77], {"timeout": 77}),
    "evaluate": (["--evaluate", "--resume", "f"], {"evaluate": True, "resume": "f"}),
    "benchmark_inference": (
        ["--benchmark-inference"],
        {"evaluate": True, "data": "data.synthetic:SyntheticImages", "max_batches": 20},
    ),
    "resume": (["--resume", "auto"], {"resume": "auto"}),
    "pretrained_weights": (["--pretrained-weights", "w"], {"use_graph": "w"}),
    "workspace": (["--workspace", "w"], {"checkpoint_dir": "w", "log_dir": "w/logs"}),
    "no_checkpoints": (["--no-checkpoints"], {"save_checkpoints": False}),
    "gather_checkpoints": (["--gather-checkpoints"], {"checkpoint_interval": 1}),
}
"""Option: the arguments, and the keys that it decides. What the keys do is tested where they are used."""


@pytest.mark.parametrize("name", KEYS)
def test_keys_of_an_option(name):
    argv, expected = KEYS[name]
    config, default = parse(*argv).config, parse().config
    assert {key: getattr(config, key) for key in expected} == expected
    assert all(getattr(default, key) != value for key, value in expected.items())


RECIPE = (
    "--epochs 100 --lr 0.256 --lr-schedule cosine --warmup 5 --momentum 0.875 --wd 3.0517578125e-05 "
    "--label-smoothing 0.1 -b 256"
)


@pytest.mark.parametrize("configuration", ["dense", "allsparse10", "ignorefirst10", "tdsparse10"])
def test_experiments_of_apps_have_the_same_identity(configuration):
    """The same experiment as options of main.py and as a file of apps/resnet."""
    file = load_config(ROOT / "apps" / "resnet" / f"resnet50_{configuration}.yml")
    typed = parse(*RECIPE.split(), "-c", configuration).config
    assert differences(file.model_dump(), typed.model_dump()) == {}
    assert identity(file.model_dump()) == identity(typed.model_dump())
    other = parse(*RECIPE.split(), "-c", "allsparse30").config
    assert identity(other.model_dump()) != identity(typed.model_dump())


def test_every_computed_key_has_its_option():
    """Messages about a key name the option that the user typed."""
    config, parser = parse().config, _parser()
    known = {flag for action in parser._actions for flag in action.option_strings} | {"DIR"}
    keys = set(_keys(parse().values, RankInfo())) - {"name", "model", "checkpoint_format"}
    for key in keys | {"multistep_lr_milestones", "rho", "graph"}:
        assert set(config.option(key).split(" and ")) <= known, key


def test_weights_of_an_evaluation_are_those_of_either_option():
    assert parse("--evaluate", "--pretrained-weights", "w").config.resume == "w"


class EnoughError(UserError):
    """Ends a run before the first step of its training."""


@pytest.fixture
def trainer_of(monkeypatch, tmp_path):
    """Gives the trainer that main.py makes for a tiny network on random images."""
    trainers = []

    def fit(trainer):
        trainers.append(trainer)
        raise EnoughError

    def trainer_of(*argv):
        small = "--data-backend=synthetic -b=4 --image-size=8 --num-classes=7 -a=resnet18 --no-checkpoints"
        assert main.main([*small.split(), "--workspace", str(tmp_path / "work"), *map(str, argv)]) == 2
        return trainers.pop()

    monkeypatch.setattr(Trainer, "fit", fit)
    return trainer_of


def batch(trainer):
    return next(iter(trainer.train.batches(0)))


def group(trainer):
    return trainer.optimizer.param_groups[-1]


def scale(trainer):
    state = trainer.precision.state_dict()
    return None if state is None else state["scale"]


EFFECTS = {
    "image_size": (["--image-size", 16], lambda t: batch(t)[0].shape[-1], 16),
    "num_classes": (["--num-classes", 9], lambda t: len(t.model.fc.weight), 9),
    "arch": (["--arch", "resnet34"], lambda t: len(t.model.layer1), 3),
    "model_config": (["-c", "allsparse10"], lambda t: type(t.model.conv1).__name__, "WiredConv2d"),
    "seed": (["--seed", 3], lambda t: (t.criterion.seed, batch(t)[1].tolist()), (3, [2, 2, 2, 5])),
    "epochs": (["--epochs", 40], lambda t: t.num_epochs, 40),
    "start_epoch": (["--start-epoch", 3], lambda t: (t.epoch, t.step), (3, 300)),
    "batch_size": (["-b", 6], lambda t: len(batch(t)[0]), 6),
    "optimizer_batch_size": (
        ["--optimizer-batch-size", 12], lambda t: (len(batch(t)[0]), t.accumulate), (12, 3)
    ),
    "lr": (["--lr", 0.5], lambda t: t.schedule(0), 0.5),
    "lr_schedule": (["--lr-schedule", "cosine"], lambda t: t.schedule(45 * 100), pytest.approx(0.05)),
    "warmup": (["--warmup", 5], lambda t: t.schedule(0), 0.1 / 5),
    "label_smoothing": (["--label-smoothing", 0.1], lambda t: t.criterion.label_smoothing, 0.1),
    "mixup": (["--mixup", 0.2], lambda t: t.criterion.mixup, 0.2),
    "momentum": (["--momentum", 0.5], lambda t: group(t)["momentum"], 0.5),
    "weight_decay": (["--weight-decay", 0.25], lambda t: group(t)["weight_decay"], 0.25),
    "bn_weight_decay": (["--bn-weight-decay"], lambda t: len(t.optimizer.param_groups), 1),
    "nesterov": (["--nesterov"], lambda t: group(t)["nesterov"], True),
    "amp": (["--amp", "bf16"], lambda t: t.precision._type, torch.bfloat16),
    "fp16": (["--fp16"], lambda t: t.precision._type, torch.float16),
    "static_loss_scale": (["--amp", "--static-loss-scale", 64], scale, 64),
    "dynamic_loss_scale": (["--amp", "fp16", "--dynamic-loss-scale"], scale, 2**16),
    "print_freq": (["-p", 3], lambda t: t.log_interval, 3),
    "prof": (["--prof", 2], lambda t: (len(t.train), len(t.val)), (2, 2)),
    "training_only": (["--training-only"], lambda t: t.val, None),
}  # fmt: skip
"""Option: the arguments, what is looked at, and what it is then."""
BY_RUNNING = {"data", "final_weights", "raport_file"}
"""Their effects are files: test_main.py."""


@pytest.mark.parametrize("name", EFFECTS)
def test_effect(name, trainer_of):
    argv, look, expected = EFFECTS[name]
    assert look(trainer_of(*argv)) == expected
    assert look(trainer_of()) != expected, "an effect that is there anyway shows nothing"


def test_every_option_is_looked_at():
    assert parse().values.keys() == EFFECTS.keys() | KEYS.keys() | BY_RUNNING


class Noted(list):
    """Stands for DALI's batches, and keeps what they were made with."""

    def __init__(self, images, *settings):
        super().__init__(images)
        self.settings = settings


@pytest.mark.parametrize("backend", ["dali-cpu", "dali-gpu"])
def test_dali_gets_what_the_keys_say(backend, tmp_path, monkeypatch):
    make_images(tmp_path)
    monkeypatch.setattr("data.imagenet.DaliBatches", Noted)
    keys = {"output_size": 3, "image_size": 32, "workers": 1, "seed": 6, "data_backend": backend}
    images = ImageFolders(tmp_path, 8, 4, **keys)
    assert (len(images.train), len(images.val)) == (12, 6)
    for batches, size, training in ((images.train, 8, True), (images.val, 4, False)):
        image_size, batch_size, _normalise, threads, is_training, seed, on_gpu = batches.settings
        assert (image_size, batch_size, threads, seed) == (32, size, 1, 6)
        assert (is_training, on_gpu) == (training, backend == "dali-gpu")
    assert ImageFolders(tmp_path, 8, 4, **keys, evaluate=True).train is None


@pytest.mark.parametrize(
    "task", [["--epochs", "1", "--no-checkpoints", "--training-only"], ["--benchmark-inference"]]
)
def test_compile_and_timeout_reach_their_makers(task, monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr(experiment, "compile_network", lambda network, device: seen.update(compiled=network))
    run_distributed = experiment.run_distributed

    def noting(work, rank_info, device, timeout, deterministic):
        seen.update(timeout=timeout, deterministic=deterministic)
        return run_distributed(work, rank_info, device, timeout)

    monkeypatch.setattr(experiment, "run_distributed", noting)
    where = ["--workspace", str(tmp_path), "--timeout", "77", "--deterministic", "--prof", "1", "-b", "2"]
    if "--epochs" in task:
        where += ["--data-backend", "synthetic"]
    assert main.main([*where, *task, "--compile", "--image-size", "32", "-a", "resnet18"]) == 0
    assert (type(seen["compiled"]), seen["timeout"], seen["deterministic"]) == (SparseResNet, 77, True)


def test_batches_and_workers_of_several_processes():
    argv = ["imagenet", "-b", "64", "-j", "5", "--optimizer-batch-size", "256"]
    found = [parse_options(argv, RankInfo(size=size, local_size=size)).config for size in (1, 2, 4)]
    sizes = [(config.batch_size, config.accumulate, config.test_batch_size) for config in found]
    assert sizes == [(256, 4, 64), (256, 2, 128), (256, 1, 256)]
    assert [config.workers for config in found] == [5, 10, 20]
    for size, message in ((3, r"multiple of 192, .* give 192, or another"), (8, r"of 512, .* give 512")):
        with pytest.raises(ConfigError, match=message):
            parse_options(argv, RankInfo(size=size, local_size=size))


def test_help_shows_groups_and_defaults(capsys):
    with pytest.raises(SystemExit) as ended:
        parse_options(["--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in ("data:", "network:", "training:", "files:", "(default: 0.1)", "allsparseK", "resnet152"):
        assert part in text
    assert "--arch" in text and "--lr-schedule" in text
