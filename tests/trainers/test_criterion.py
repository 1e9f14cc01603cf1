"""The criterion against the definitions of cross-entropy, label smoothing and mixup."""

import pytest
import torch
import torch.nn.functional as F

from trainers.criterion import Criterion

IMAGES = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 1, 0])
LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def by_definition(logits, targets):
    return -(targets * logits.log_softmax(1)).sum(1).mean()


def smoothed(labels, smoothing):
    return (1 - smoothing) * F.one_hot(labels, 4) + smoothing / 4


def test_plain_cross_entropy():
    mixed = Criterion().prepare(IMAGES, LABELS, step=3)
    assert mixed.images is IMAGES
    assert mixed.labels is LABELS
    torch.testing.assert_close(Criterion()(LOGITS, mixed), F.cross_entropy(LOGITS, LABELS))


def test_label_smoothing():
    criterion = Criterion(label_smoothing=0.1)
    loss = criterion(LOGITS, criterion.prepare(IMAGES, LABELS, 0))
    torch.testing.assert_close(loss, by_definition(LOGITS, smoothed(LABELS, 0.1)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixup(smoothing):
    criterion = Criterion(smoothing, mixup=0.4, seed=5)
    mixed = criterion.prepare(IMAGES, LABELS, step=7)
    assert 0.5 <= mixed.lam < 1
    for number, image in enumerate(mixed.images):
        partners = [
            other
            for other in range(6)
            if torch.allclose(image, mixed.lam * IMAGES[number] + (1 - mixed.lam) * IMAGES[other])
        ]
        assert mixed.labels_b[number] in LABELS[partners]
    targets = mixed.lam * smoothed(mixed.labels, smoothing)
    targets = targets + (1 - mixed.lam) * smoothed(mixed.labels_b, smoothing)
    torch.testing.assert_close(criterion(LOGITS, mixed), by_definition(LOGITS, targets))


def test_mixup_repeats_and_differs_by_step_process_and_microbatch():
    criterion = Criterion(mixup=1.0, seed=5)
    again = Criterion(mixup=1.0, seed=5)
    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    weights = [criterion.prepare(IMAGES, LABELS, *place).lam for place in places]
    assert weights == [again.prepare(IMAGES, LABELS, *place).lam for place in places]
    assert len(set(weights)) == len(places)
    assert Criterion(mixup=1.0, seed=6).prepare(IMAGES, LABELS, 0).lam != weights[0]
    before = torch.get_rng_state()
    criterion.prepare(IMAGES, LABELS, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_follow_the_beta_distribution():
    """Of Beta(α, α) folded at one half; for α = 1 its mean is 3/4, for a small α it is near 1."""
    for alpha, mean in ((1.0, 0.75), (0.01, 0.99)):
        criterion = Criterion(mixup=alpha)
        weights = [criterion.prepare(IMAGES, LABELS, step).lam for step in range(2000)]
        assert sum(weights) / 2000 == pytest.approx(mean, abs=0.01)


def test_a_blank_image_is_not_mixed_and_has_loss_0():
    criterion, logits = Criterion(mixup=1.0), LOGITS[:1].clone().requires_grad_()
    blank = criterion.prepare(IMAGES[:1], LABELS[:0], 0)
    assert blank.labels_b is None
    criterion(logits, blank).backward()
    assert criterion(logits, blank) == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("settings", [{"label_smoothing": 1.5}, {"label_smoothing": -0.1}, {"mixup": -1}])
def test_wrong_numbers(settings):
    with pytest.raises(ValueError, match="must"):
        Criterion(**settings)
