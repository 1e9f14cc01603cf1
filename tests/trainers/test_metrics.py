"""Loss and accuracies, exact over batches of different size."""

import pytest
import torch
import torch.nn.functional as F

from trainers.evaluation import evaluate
from trainers.metrics import Meter


def test_exact_over_a_short_last_batch():
    torch.manual_seed(0)
    logits, labels = torch.randn(23, 7), torch.randint(0, 7, (23,))
    meter = Meter([1, 5], "cpu")
    for part, target in zip(logits.split(8), labels.split(8), strict=True):
        meter.update(F.cross_entropy(part, target), part, target)
    values = meter.read()
    order = logits.argsort(dim=1, descending=True)
    top5 = (order[:, :5] == labels.unsqueeze(1)).any(1).float().mean().item()
    assert meter.num_images == 23
    assert values["CELoss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-6)
    assert values["top1_accuracy"] == pytest.approx(100 * (order[:, 0] == labels).float().mean().item())
    assert values["top5_accuracy"] == pytest.approx(100 * top5)


def test_state_goes_on_exactly():
    first, whole = Meter([1], "cpu"), Meter([1], "cpu")
    batches = [(torch.randn(4, 3), torch.randint(0, 3, (4,))) for _ in range(4)]
    for logits, labels in batches[:2]:
        first.update(F.cross_entropy(logits, labels), logits, labels)
    second = Meter([1], "cpu")
    second.load_state_dict(first.state_dict())
    for logits, labels in batches:
        whole.update(F.cross_entropy(logits, labels), logits, labels)
    for logits, labels in batches[2:]:
        second.update(F.cross_entropy(logits, labels), logits, labels)
    assert second.read() == whole.read()


class _Once:
    def __init__(self, images, labels, size):
        self.parts = list(zip(images.split(size), labels.split(size), strict=True))

    def __len__(self):
        return len(self.parts)

    def batches(self, epoch, start=0):
        return iter(self.parts[start:])


def test_evaluation_counts_every_image_once_and_keeps_the_mode():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(12), torch.nn.Linear(12, 3))
    images, labels = torch.randn(11, 3, 2, 2), torch.randint(0, 3, (11,))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    values = evaluate(model, _Once(images, labels, 4), [1])
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    model.eval()
    right = (model(images).argmax(1) == labels).float().mean().item()
    assert values["top1_accuracy"] == pytest.approx(100 * right)
