"""Captured steps: with a recorder that calls the step again, as a replay repeats its kernels."""

import pytest
import torch
from torch import nn

import runner
from trainers.captured import CapturedStep, obstacle_to_capture, whole_batch_step
from trainers.criterion import Criterion
from trainers.optimizers import make_lr_tensor, sgd
from trainers.precision import Precision
from trainers.trainer import Trainer


class Batches:
    """20 images of which the last two are a batch of their own."""

    def __len__(self):
        return 4

    def batches(self, epoch, start=0):
        generator = torch.Generator().manual_seed(epoch)
        images = torch.randn(20, 3, 4, 4, generator=generator)
        labels = torch.randint(0, 5, (20,), generator=generator)
        yield from list(zip(images.split(6), labels.split(6), strict=True))[start:]


class Recorder:
    """Counts how steps are run."""

    def __init__(self):
        self.plain = self.recorded = self.replayed = 0

    def capture(self, step):
        return CapturedStep(step, self.record, self.run_plainly)

    def run_plainly(self, run):
        self.plain += 1
        return run()

    def record(self, run):
        """Like a graph, it keeps the tensors of its results; each replay calls the step."""
        self.recorded += 1
        results = torch.zeros(()), torch.zeros(6, 5)

        def replay():
            self.replayed += 1
            for kept, found in zip(results, run(), strict=True):
                kept.copy_(found)

        return replay, results


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 5))


def train(model, schedule, amp, recorder=None):
    optimizer = sgd(model.parameters(), lr=0.5, momentum=0.9, weight_decay=1e-3, nestorov=False)
    precision, step = Precision(amp, torch.device("cpu")), None
    if recorder is not None:
        make_lr_tensor(optimizer, torch.device("cpu"))
        step = recorder.capture(whole_batch_step(model, optimizer, Criterion(), precision))
    trainer = Trainer(
        model, optimizer, schedule, Batches(), None, num_epochs=3, topk=(1,), log_interval=2,
        precision=precision, captured_step=step,
    )  # fmt: skip
    return trainer, trainer.fit()


def schedule(step):
    return 0.25 * 0.5 ** (step // 3)


@pytest.mark.parametrize("amp", [None, "bf16"])
def test_a_captured_training_is_the_plain_one(amp):
    """Weights, metrics and the learning rate, which changes within the run and is exact in float32."""
    recorder, models = Recorder(), (network(), network())
    plain, metrics = train(models[0], schedule, amp)
    captured, found = train(models[1], schedule, amp, recorder)
    assert metrics == found
    assert captured.lr == plain.lr == schedule(11)
    for ours, theirs in zip(models[1].parameters(), models[0].parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert (recorder.plain, recorder.recorded, recorder.replayed) == (3 + 3, 1, 6)


def test_batches_of_other_shapes_are_run_as_they_are():
    recorder, calls = Recorder(), []

    def step(images, labels):
        calls.append(len(labels))
        return images.sum(), images

    captured = CapturedStep(step, recorder.record, recorder.run_plainly)
    for size in (6, 2, 6, 2, 2, 6):
        captured(torch.ones(size, 5), torch.zeros(size))
    assert recorder.recorded == 0
    loss, logits = captured(torch.full((6, 5), 2.0), torch.zeros(6))
    assert (recorder.recorded, recorder.replayed) == (1, 1)
    assert (loss.item(), logits.shape) == (60, (6, 5))
    assert captured(torch.ones(2, 5), torch.zeros(2))[0].item() == 10
    assert captured(torch.ones(6, 5), torch.zeros(6))[0].item() == 30
    assert recorder.plain == 7
    assert calls == [6, 2, 6, 2, 2, 6, 6, 2, 6]


def test_what_cannot_be_captured():
    model, cuda = network(), torch.device("cuda", 0)
    optimizer = sgd(model.parameters(), lr=0.5, momentum=0.9, weight_decay=0, nestorov=False)
    assert obstacle_to_capture(optimizer, cuda, None, 1) is None
    assert obstacle_to_capture(optimizer, cuda, "bf16", 1) is None
    assert "several processes" in obstacle_to_capture(optimizer, cuda, None, 2)
    assert "fp16" in obstacle_to_capture(optimizer, cuda, "fp16", 1)
    other = torch.optim.Adam(model.parameters())
    assert "Adam may read its learning rate" in obstacle_to_capture(other, cuda, None, 1)


def test_the_flag_without_a_gpu(write_app, caplog, capsys):
    assert runner.main([f"app:{write_app()}", "--gpus", "--cuda_graph", "--num_epochs", "1"]) == 0
    assert "cuda_graph has no effect: the network is on cpu" in caplog.text
    assert runner.main([f"app:{write_app()}", "--cuda_graph", "--accumulate", "2"]) == 2
    assert "cuda_graph: captures one step without microbatches; remove accumulate" in capsys.readouterr().err
