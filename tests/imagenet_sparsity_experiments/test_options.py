"""Every option has an effect or is refused; defaults are the published ones."""

import dataclasses

import pytest
import torch

from genutil.distributed.world import ALONE
from genutil.errors import ConfigError
from genutil.signals import StopRequest
from imagenet_sparsity_experiments import options as module
from imagenet_sparsity_experiments.backends import Images, load_images
from imagenet_sparsity_experiments.configurations import ARCHITECTURES, find_configuration
from imagenet_sparsity_experiments.names import checkpoint_names
from imagenet_sparsity_experiments.options import Options, parse_options
from imagenet_sparsity_experiments.resnet import SparseResNet
from imagenet_sparsity_experiments.training import check_last_parts, make_optimizer, make_trainer, step_of
from tests.imagenet_sparsity_experiments.toy import make_images

DEFAULTS = {
    "data_backend": "pytorch", "arch": "resnet50", "model_config": "classic", "workers": 5, "epochs": 90,
    "start_epoch": 0, "batch_size": 256, "optimizer_batch_size": -1, "lr": 0.1, "lr_schedule": "step",
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
    found = parse().values()
    assert {name: found[name] for name in DEFAULTS} == DEFAULTS
    assert found["data"] == "imagenet"
    assert parse().explicit == {"data"}


@pytest.mark.parametrize(("short", "long"), SHORT.items())
def test_short_names(short, long):
    value = {"-a": "resnet18", "-c": "dense"}.get(short, "7")
    assert parse(short, value) == parse(long, value) == parse(f"{long}={value}")


class Built:
    """The parts that options decide on, for a tiny network on random images."""

    def __init__(self, *argv):
        small = ["--data-backend=synthetic", "-b=4", "--image-size=8", "--num-classes=7", "--arch=resnet18"]
        self.options = options = parse_options([*small, *map(str, argv)])
        torch.manual_seed(options.seed)
        self.network = SparseResNet(
            options.arch, find_configuration(options.model_config), options.num_classes, options.channels_last
        )
        step_size, _ = step_of(options, 1)
        self.images: Images = load_images(options, ALONE, step_size)
        optimizer = make_optimizer(options, self.network)
        self.trainer = make_trainer(options, self.network, optimizer, self.images, (), ALONE, StopRequest())
        self.batch, self.labels = next(iter(self.images.train.batches(0)))

    @property
    def group(self):
        return self.trainer.optimizer.param_groups[-1]


def scale(built):
    state = built.trainer.precision.state_dict()
    return None if state is None else state["scale"]


EFFECTS = {
    "image_size": (["--image-size", 16], lambda b: b.batch.shape[-1], 16),
    "num_classes": (["--num-classes", 9], lambda b: len(b.network.fc.weight), 9),
    "arch": (["--arch", "resnet34"], lambda b: len(b.network.layer1), 3),
    "model_config": (["-c", "allsparse10"], lambda b: type(b.network.conv1).__name__, "WiredConv2d"),
    "channels_last": (["--channels-last"], lambda b: b.network.channels_last, True),
    "seed": (["--seed", 3], lambda b: (b.trainer.criterion.seed, b.labels.tolist()), (3, [2, 2, 2, 5])),
    "epochs": (["--epochs", 40], lambda b: b.trainer.num_epochs, 40),
    "batch_size": (["-b", 6], lambda b: len(b.batch), 6),
    "optimizer_batch_size": (
        ["--optimizer-batch-size", 12], lambda b: (len(b.batch), b.trainer.accumulate), (12, 3)
    ),
    "lr": (["--lr", 0.5], lambda b: b.trainer.schedule(0), 0.5),
    "lr_schedule": (["--lr-schedule", "cosine"], lambda b: b.trainer.schedule(45 * 100), pytest.approx(0.05)),
    "warmup": (["--warmup", 5], lambda b: b.trainer.schedule(0), 0.1 / 5),
    "label_smoothing": (["--label-smoothing", 0.1], lambda b: b.trainer.criterion.label_smoothing, 0.1),
    "mixup": (["--mixup", 0.2], lambda b: b.trainer.criterion.mixup, 0.2),
    "momentum": (["--momentum", 0.5], lambda b: b.group["momentum"], 0.5),
    "weight_decay": (["--weight-decay", 0.25], lambda b: b.group["weight_decay"], 0.25),
    "bn_weight_decay": (["--bn-weight-decay"], lambda b: len(b.trainer.optimizer.param_groups), 1),
    "nesterov": (["--nesterov"], lambda b: b.group["nesterov"], True),
    "amp": (["--amp", "bf16"], lambda b: b.trainer.precision._type, torch.bfloat16),
    "fp16": (["--fp16"], lambda b: b.trainer.precision._type, torch.float16),
    "static_loss_scale": (
        ["--amp", "--static-loss-scale", 64], lambda b: scale(b), 64
    ),
    "dynamic_loss_scale": (
        ["--amp", "fp16", "--dynamic-loss-scale"], lambda b: scale(b), 2**16
    ),
    "print_freq": (["-p", 3], lambda b: b.trainer.log_interval, 3),
    "prof": (["--prof", 2], lambda b: (len(b.images.train), len(b.images.val)), (2, 2)),
    "training_only": (["--training-only"], lambda b: b.trainer.val, None),
}  # fmt: skip
"""Option: the arguments, what is looked at, and what it is then."""
BY_RUNNING = {
    "data", "evaluate", "benchmark_inference", "start_epoch", "resume", "pretrained_weights", "workspace",
    "no_checkpoints", "gather_checkpoints", "final_weights", "raport_file",
}  # fmt: skip
"""Their effects are files and runs: test_main.py."""
HERE = {"data_backend", "workers", "skip_corrupt", "compile", "timeout", "deterministic"}
"""Looked at below."""


@pytest.mark.parametrize("name", EFFECTS)
def test_effect(name):
    argv, look, expected = EFFECTS[name]
    assert look(Built(*argv)) == expected
    assert look(Built()) != expected, "an effect that is there anyway shows nothing"


def test_every_option_is_looked_at():
    assert {field.name for field in dataclasses.fields(Options)} - {"explicit"} == (
        EFFECTS.keys() | BY_RUNNING | HERE
    )


class Noted(list):
    """Stands for DALI's batches, and keeps what they were made with."""

    def __init__(self, images, *settings):
        super().__init__(images)
        self.settings = settings

    def batches(self, epoch, start=0):
        return iter(())


@pytest.mark.parametrize("backend", ["dali-cpu", "dali-gpu"])
def test_dali_gets_what_the_options_say(backend, tmp_path, monkeypatch):
    make_images(tmp_path)
    monkeypatch.setattr("imagenet_sparsity_experiments.backends.DaliBatches", Noted)
    small = ["--num-classes", 3, "-b", 4, "--image-size", 32, "-j", 1, "--seed", 6, "--data-backend", backend]
    images = load_images(parse_options([str(tmp_path), *map(str, small)]), ALONE, 8)
    assert (len(images.train), len(images.val)) == (12, 6)
    for batches, size, training in ((images.train, 8, True), (images.val, 4, False)):
        image_size, batch_size, _normalise, threads, is_training, seed, on_gpu = batches.settings
        assert (image_size, batch_size, threads, seed) == (32, size, 1, 6)
        assert (is_training, on_gpu) == (training, backend == "dali-gpu")
    evaluated = [
        str(tmp_path),
        "--num-classes",
        "3",
        "--data-backend",
        backend,
        "--evaluate",
        "--resume",
        "f",
    ]
    assert load_images(parse_options(evaluated), ALONE, 8).train is None


def test_backends_differ(tmp_path):
    make_images(tmp_path)
    small = [str(tmp_path), "--num-classes", "3", "-b", "4", "-j", "0"]
    files = load_images(parse_options(small), ALONE, 4)
    assert (len(files.train), files.num_training) == (3, 12)
    random = load_images(parse_options([*small[:-2], "--data-backend", "synthetic"]), ALONE, 4)
    assert (len(random.train), random.num_training) == (100, None)


@pytest.mark.parametrize(
    ("images", "batch_size", "processes", "more", "refused"),
    [
        (12, 4, 1, [], False), (13, 4, 1, [], True), (14, 4, 1, [], False), (13, 4, 1, ["--prof", 2], False),
        (13, 4, 1, ["--image-size", 64], False), (12, 1, 1, [], True), (18, 4, 2, [], True),
        (20, 4, 2, [], False), (17, 4, 2, [], True), (22, 4, 1, ["--optimizer-batch-size", 8], False),
        (19, 4, 1, ["--optimizer-batch-size", 8], True), (17, 4, 1, ["--optimizer-batch-size", 8], True),
    ],
)  # fmt: skip
def test_steps_of_single_images_are_refused_where_maps_have_one_pixel(
    images, batch_size, processes, more, refused
):
    options = parse("-b", batch_size, "--image-size", 32, *more)
    found = Images(None, None, num_training=images if options.prof == -1 else None)
    if refused:
        with pytest.raises(ConfigError, match="leaves a process one image or none"):
            check_last_parts(options, found, processes)
    else:
        check_last_parts(options, found, processes)


def test_workers_and_corrupt_images(tmp_path, monkeypatch):
    make_images(tmp_path)
    small = [tmp_path, "--num-classes", 3, "-b", 4, "--image-size", 32]
    monkeypatch.setattr("imagenet_sparsity_experiments.backends.available_cpus", lambda: 2)
    for asked, started in ((0, 0), (1, 1), (9, 2)):
        images = load_images(parse_options([*map(str, small), "-j", str(asked)]), ALONE, 4)
        assert images.train._loading.workers == started
    assert not images.train._loading.skip_corrupt
    (tmp_path / "val" / "class0" / "0.jpg").write_text("no image")
    options = parse_options([*map(str, small), "-j", "0", "--skip-corrupt"])
    images = load_images(options, ALONE, 4)
    assert sum(len(labels) for _, labels in images.val.batches(0)) == 5
    assert len(images.corrupt) == 1


@pytest.mark.parametrize(
    "task", [["--epochs", "1", "--no-checkpoints", "--training-only"], ["--benchmark-inference"]]
)
def test_compile_and_timeout_reach_their_makers(task, monkeypatch, tmp_path):
    from imagenet_sparsity_experiments import main, program

    seen = {}
    monkeypatch.setattr(program, "compile_network", lambda network, device: seen.update(compiled=network))
    run_distributed = program.run_distributed

    def noting(work, place, device, timeout, deterministic):
        seen.update(timeout=timeout, deterministic=deterministic)
        return run_distributed(work, place, device, timeout)

    monkeypatch.setattr(program, "run_distributed", noting)
    where = ["--workspace", str(tmp_path), "--timeout", "77", "--deterministic", "--prof", "1", "-b", "2"]
    if "--epochs" in task:
        where += ["--data-backend", "synthetic"]
    assert main.main([*where, *task, "--compile", "--image-size", "32", "-a", "resnet18"]) == 0
    assert (type(seen["compiled"]), seen["timeout"], seen["deterministic"]) == (SparseResNet, 77, True)


def test_files_are_called_as_asked():
    layout = checkpoint_names(parse("--final-weights", "a.tar", "--raport-file", "b.json"))
    assert layout.extra_files == ("a.tar", "b.json")


def test_a_step_that_the_processes_cannot_share():
    options = parse("-b", 64, "--optimizer-batch-size", 256)
    assert step_of(options, 1) == (256, 4)
    assert step_of(options, 4) == (256, 1)
    with pytest.raises(ConfigError, match=r"256 images are no multiple of 192, .* give 192, or another"):
        step_of(options, 3)
    with pytest.raises(ConfigError, match=r"no multiple of 512, .* give 512"):
        step_of(options, 8)


def test_help_shows_groups_and_defaults(capsys):
    with pytest.raises(SystemExit) as ended:
        parse_options(["--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in ("data:", "network:", "training:", "files:", "(default: 0.1)", "allsparseK", *ARCHITECTURES):
        assert part in text
    assert {"--arch", "--lr-schedule"} <= set(module._parser()._option_string_actions)
