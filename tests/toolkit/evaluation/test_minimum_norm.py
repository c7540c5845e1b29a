from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from rctk.attacks import ATTACKS
from rctk.data.split import Split
from rctk.evaluation.judge import evaluate
from rctk.evaluation.minimum_norm import lengths, minimum_norm
from rctk.threat import ThreatModel
from rctk_kernels.errors import AttackError


class Digits(NamedTuple):
    plain: nn.Module
    robust: nn.Module
    split: Split


@pytest.fixture(scope="module")
def digits():
    """Two small nets trained on real digits, one with noise of linf 0.15 in its images, and 60 unseen images."""
    data = load_digits()
    images, labels = (data.images / 16).astype(np.float32)[:, None], data.target.astype(np.int64)
    x, y = torch.from_numpy(images[:1400]), torch.from_numpy(labels[:1400])
    nets = []
    for noise in (0.0, 0.15):
        generator = torch.Generator().manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        for parameter in net.parameters():
            nn.init.uniform_(parameter, -0.15, 0.15, generator=generator)
        optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
        for _ in range(60):
            shift = noise * (2 * torch.rand(x.shape, generator=generator) - 1).sign()
            optimizer.zero_grad()
            nn.functional.cross_entropy(net((x + shift).clamp(0, 1)), y).backward()
            optimizer.step()
        nets.append(net.requires_grad_(False).eval())
    return Digits(*nets, Split(name="digits:test", images=images[1400:1460], labels=labels[1400:1460]))


def predict_with(model):
    def predict(images):
        with torch.no_grad():
            return model(torch.from_numpy(images)).numpy()

    return predict


def two_classes():
    """Class 1 leads by ``sum of x - 2``; four pixels."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    net[1].weight.data = torch.tensor([[0.0, 0, 0, 0], [1, 1, 1, 1]])
    net[1].bias.data = torch.tensor([0.0, -2.0])
    images = np.stack([np.full((1, 2, 2), level, dtype=np.float32) for level in (0.6, 0.7, 0.4)])
    return net.eval(), Split(name="own", images=images, labels=np.array([1, 1, 1]))


def measure(attack, norm, net, split, **options):
    return minimum_norm(predict_with(net), split, ATTACKS.build(attack), norm, seed=0, model=net, **options)


@pytest.mark.parametrize(
    ("attack", "norm", "factor"),
    [
        ("deepfool", "linf", 1.0),
        ("deepfool", "l2", 2.0),
        ("fab-t", "linf", 1.0),
        ("fab", "l2", 2.0),
        ("fmn:steps=300", "linf", 1.0),
        ("fmn:steps=300", "l2", 2.0),
        ("fmn:steps=300", "l1", 4.0),
        ("cw-l2:first_weight=1", "l2", 2.0),
        ("cw-linf", "linf", 1.0),
    ],
)
def test_distances_of_a_linear_boundary(attack, norm, factor):
    # each of four pixels has to fall by 0.1 and by 0.2: 1, 2 and 4 times that in linf, l2 and l1
    result = measure(attack, norm, *two_classes())
    assert result.clean.tolist() == [True, True, False]
    np.testing.assert_allclose(result.distance[:2], factor * np.array([0.1, 0.2]), rtol=0.1)
    assert result.distance[2] == 0
    assert result.success_rate == 1
    assert result.median == pytest.approx(result.mean)
    np.testing.assert_allclose(lengths(result.adversarial - two_classes()[1].images, norm), result.distance)


def test_no_budget_ends_the_search():
    # far beyond any usual budget
    net, split = two_classes()
    net[1].bias.data[1] = -0.1
    result = measure("fmn:steps=200", "linf", net, split)
    np.testing.assert_allclose(result.distance, [0.575, 0.675, 0.375], rtol=0.02)


def test_failures_are_infinite_and_count_in_the_median_but_not_in_the_mean():
    class Rounds(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            kept = torch.where(x[:1].mean() > 0, x, x)
            return self.net(kept.round() + 0 * x)

    net, split = two_classes()
    result = measure("deepfool", "l2", Rounds(net), split)
    assert np.isinf(result.distance[result.clean]).all()
    assert result.success_rate == 0
    assert math.isinf(result.median)
    assert result.mean is None
    assert result.zero_gradient_share == 1
    assert any("gradients were zero" in note for note in result.notes)
    np.testing.assert_array_equal(result.adversarial, split.images)


def test_the_model_under_test_has_the_last_word():
    # the attack works on the honest net; the one that is judged calls everything class 1
    net, split = two_classes()
    result = minimum_norm(
        lambda images: np.tile(np.float32([0, 1]), (len(images), 1)),
        split,
        ATTACKS.build("deepfool"),
        "l2",
        seed=0,
        model=net,
    )
    assert result.clean.all()
    assert np.isinf(result.distance).all()


def test_robust_accuracy_at_eps_is_what_the_judge_finds_with_that_budget(digits):
    net = digits.robust
    result = measure("fab-t:steps=40,targets=5", "linf", net, digits.split)
    for eps in (0.05, 0.15):
        judged = evaluate(
            predict_with(net),
            digits.split,
            ATTACKS.build("fab-t:steps=40,targets=5"),
            ThreatModel(eps=eps),
            seed=0,
            model=net,
        )
        assert abs(result.robust_accuracy(eps) - judged.robust_accuracy) <= 0.01
    assert result.robust_accuracy(0) == result.clean.mean()
    assert result.robust_accuracy(1) == 0


def test_the_same_seed_and_another_batch_size_give_the_same_distances(digits):
    results = [measure("fmn", "l2", digits.robust, digits.split, batch_size=size) for size in (64, 64, 7)]
    np.testing.assert_array_equal(results[0].adversarial, results[1].adversarial)
    assert (np.abs(results[0].distance - results[2].distance) < 1e-3).mean() > 0.95


def test_label_attacks_are_measured_too_and_without_a_torch_model(digits):
    result = minimum_norm(
        predict_with(digits.plain),
        digits.split.take(np.arange(10)),
        ATTACKS.build("hopskipjump:queries=300"),
        "l2",
        seed=0,
    )
    white = measure("fmn", "l2", digits.plain, digits.split.take(np.arange(10)))
    assert result.success_rate == 1
    assert result.forward_passes == 0
    assert result.queries.max() <= 302
    assert white.median < result.median < 8


def test_an_attack_that_fills_a_budget_is_refused(digits):
    with pytest.raises(AttackError, match="fills a budget and does not look for the nearest image"):
        measure("pgd", "linf", digits.plain, digits.split)


def test_a_norm_that_the_attack_does_not_know_is_refused(digits):
    with pytest.raises(AttackError, match="deepfool runs in linf and l2, got l1"):
        measure("deepfool", "l1", digits.plain, digits.split)
