"""What training minimises: against the definitions, written out."""

import pytest
import torch
import torch.nn.functional as F

from trainers.objective import Objective

IMAGES = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 1, 0])
LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def by_definition(logits, targets):
    return -(targets * logits.log_softmax(1)).sum(1).mean()


def smoothed(labels, smoothing):
    return (1 - smoothing) * F.one_hot(labels, 4) + smoothing / 4


def test_plain_cross_entropy():
    mixed = Objective().mix(IMAGES, LABELS, step=3)
    assert mixed.images is IMAGES
    assert mixed.labels is LABELS
    torch.testing.assert_close(Objective().loss(LOGITS, mixed), F.cross_entropy(LOGITS, LABELS))


def test_label_smoothing():
    objective = Objective(label_smoothing=0.1)
    found = objective.loss(LOGITS, objective.mix(IMAGES, LABELS, 0))
    torch.testing.assert_close(found, by_definition(LOGITS, smoothed(LABELS, 0.1)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixtures(smoothing):
    objective = Objective(smoothing, mixup=0.4, seed=5)
    mixed = objective.mix(IMAGES, LABELS, step=7)
    assert 0.5 <= mixed.share < 1
    for number, image in enumerate(mixed.images):
        partners = [
            other
            for other in range(6)
            if torch.allclose(image, mixed.share * IMAGES[number] + (1 - mixed.share) * IMAGES[other])
        ]
        assert mixed.partners[number] in LABELS[partners]
    targets = mixed.share * smoothed(mixed.labels, smoothing)
    targets = targets + (1 - mixed.share) * smoothed(mixed.partners, smoothing)
    torch.testing.assert_close(objective.loss(LOGITS, mixed), by_definition(LOGITS, targets))


def test_mixtures_repeat_and_differ_by_step_process_and_part():
    objective = Objective(mixup=1.0, seed=5)
    again = Objective(mixup=1.0, seed=5)
    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    shares = [objective.mix(IMAGES, LABELS, *place).share for place in places]
    assert shares == [again.mix(IMAGES, LABELS, *place).share for place in places]
    assert len(set(shares)) == len(places)
    assert Objective(mixup=1.0, seed=6).mix(IMAGES, LABELS, 0).share != shares[0]
    before = torch.get_rng_state()
    objective.mix(IMAGES, LABELS, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_shares_follow_the_beta_distribution():
    """Of Beta(α, α) folded at one half; for α = 1 its mean is 3/4, for a small α it is near 1."""
    for alpha, mean in ((1.0, 0.75), (0.01, 0.99)):
        objective = Objective(mixup=alpha)
        shares = [objective.mix(IMAGES, LABELS, step).share for step in range(2000)]
        assert sum(shares) / 2000 == pytest.approx(mean, abs=0.01)


def test_no_image_is_no_mixture():
    assert Objective(mixup=1.0).mix(IMAGES, LABELS[:0], 0).partners is None


@pytest.mark.parametrize("settings", [{"label_smoothing": 1.5}, {"label_smoothing": -0.1}, {"mixup": -1}])
def test_wrong_numbers(settings):
    with pytest.raises(ValueError, match="must"):
        Objective(**settings)
