"""Mistakes in the options: each message names the option and what to do."""

import pytest

from genutil.exceptions import ConfigError
from imagenet_sparsity_experiments.options import parse_options


def parse(*argv):
    return parse_options(["imagenet", *map(str, argv)])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--lr", "-1"], "--lr: must be greater than 0, got -1.0"),
        (["-b", 0], "--batch-size: must be greater than or equal to 1, got 0"),
        (["--warmup", -1], "--warmup: must be greater than or equal to 0, got -1"),
        (["--warmup", 90], "--warmup: must be less than num_epochs"),
        (["--label-smoothing", 1], "--label-smoothing: must be less than 1"),
        (["--momentum", "nan"], "--momentum: must be less than 1, got nan"),
        (["--lr", "nan"], "--lr: must be greater than 0, got nan"),
        (["--prof", 0], "--prof: must be greater than or equal to 1, got 0"),
        (["--start-epoch", 90], "--start-epoch: must be less than num_epochs"),
        (["--nesterov", "--momentum", 0], "--nesterov: needs a momentum"),
        (["--num-classes", 0], "--num-classes: must be greater than or equal to 1, got 0"),
        (["-c", "allsparse200"], "--model-config: must be classic"),
        (["-c", "tdsparse"], "got tdsparse; did you mean tdsparse"),
        (["-a", "resnet51"], r"invalid choice: 'resnet51' \(choose from"),
        (["--lr", "fast"], "invalid float value: 'fast'"),
        (["--weight-dekay", 1], "did you mean --weight-decay"),
        (["--learning-rate", 1], "unrecognized arguments: --learning-rate"),
        (["other"], "unrecognized arguments: other"),
        (["--static-loss-scale", 8], "--static-loss-scale: works only with fp16"),
        (["--dynamic-loss-scale", "--amp", "bf16"], "--dynamic-loss-scale: works only with fp16"),
        (["--fp16", "--static-loss-scale", 8, "--dynamic-loss-scale"], "choose one of them"),
        (["--fp16", "--static-loss-scale", 0], "--static-loss-scale: must be greater than 0"),
        (["--fp16", "--amp"], "--fp16: is the same as --amp fp16"),
        (["--evaluate"], "--evaluate: evaluates a checkpoint; name it with --resume FILE"),
        (["--evaluate", "--resume", "f", "--lr", 1], "--lr: has no effect with --evaluate; remove it"),
        (["--evaluate", "--resume", "f", "--training-only"], "--training-only: has no effect with"),
        (["--evaluate", "--benchmark-inference"], "--evaluate: cannot be combined with --benchmark"),
        (["--benchmark-inference", "-j", 2], "--workers: has no effect with --benchmark-inference, whose"),
        (["--benchmark-inference", "--data-backend", "dali-cpu"], "--data-backend: has no effect with"),
        (["--data-backend", "synthetic", "-j", 2], "--workers: has no effect with --data-backend synthetic"),
        (["--data-backend", "dali-cpu", "--skip-corrupt"], "--skip-corrupt: works only with .* pytorch"),
        (["--resume", "a", "--pretrained-weights", "b"], "--resume: gives weights, and so does"),
        (["--evaluate", "--resume", "auto", "--pretrained-weights", "b"], "--resume: gives weights, and so"),
        (["--resume", "a", "--start-epoch", 3], "--start-epoch: is determined by the checkpoint"),
        (["--no-checkpoints", "--gather-checkpoints"], "--gather-checkpoints: keeps checkpoints"),
        (["--final-weights", "checkpoint.pth.tar"], "--final-weights: must not be checkpoint.pth.tar, w"),
        (["--raport-file", "checkpoint-3.pth.tar"], "--raport-file: must not be checkpoint-3.pth.tar"),
        (["--raport-file", ""], "--raport-file: must be the name of a file"),
        (["--raport-file", "model.pth.tar"], "--raport-file: must be another file than --final-weights"),
        (["--evaluate", "--resume", "f", "--seed", 2], "--seed: has no effect with --evaluate, where"),
        (["--no-checkpoints", "--final-weights", "x"], "--final-weights: has no effect with --no-"),
        (["-b", 8, "--optimizer-batch-size", 12], "--optimizer-batch-size: must be a multiple of 8, "),
    ],
)  # fmt: skip
def test_mistakes(argv, message):
    with pytest.raises(ConfigError, match=message):
        parse(*argv)


def test_all_mistakes_at_once_and_images_are_needed():
    with pytest.raises(ConfigError) as raised:
        parse_options(["--lr", "0", "-c", "x"])
    for part in ("3 problems", "--lr", "--model-config", "DIR: is missing"):
        assert part in str(raised.value)
