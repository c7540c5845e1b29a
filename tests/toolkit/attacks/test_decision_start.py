from __future__ import annotations

import numpy as np
import pytest

from rctk.attacks.case import cases
from rctk.attacks.decision_start import DONORS, NOISES, Donors, approach, start
from rctk.attacks.lockstep import fooled, lockstep
from rctk.threat import ThreatModel

SHAPE = (1, 2, 3)
FAR = ThreatModel(norm="l2", eps=1e-3)


def open_cases(x, threat=FAR, queries=100, seed=0):
    return cases(x, threat, np.random.default_rng(seed), queries)


def walk(predict, x, search, threat=FAR, queries=100):
    """Run one search on the first image and return what it returned, and its case."""
    case, results = open_cases(x, threat, queries)[0], []

    def keep(one):
        results.append((yield from search(one)))

    lockstep(predict, np.zeros(len(x), dtype=np.int64), [case], keep, fooled)
    return (results or [None])[0], case


def beyond(mean):
    """Class 1 where the mean pixel is above ``mean``."""

    def predict(x):
        return np.stack([np.full(len(x), mean), x.mean(axis=(1, 2, 3))], axis=1)

    return predict


def flat(*pixels):
    return np.stack([np.full(SHAPE, pixel, dtype=np.float32) for pixel in pixels])


def test_donors_are_of_other_classes_and_the_nearest_comes_first():
    x = flat(0.5, 0.9, 0.51, 0.6, 0.2)
    donors = Donors(x, np.array([0, 1, 0, 2, 1])).of(open_cases(x)[0])
    np.testing.assert_array_equal(donors, flat(0.6, 0.2, 0.9))


def test_donors_are_drawn_by_chance_and_not_by_their_place():
    x = np.random.default_rng(0).random((40, *SHAPE), dtype=np.float32)
    y = np.arange(40) % 2
    drawn = Donors(x, y).of(open_cases(x)[3])
    assert drawn.shape == (DONORS, *SHAPE)
    order = np.random.default_rng(1).permutation(40)
    place = int(np.flatnonzero(order == 3)[0])
    np.testing.assert_array_equal(Donors(x[order], y[order]).of(open_cases(x[order])[place]), drawn)
    assert not np.array_equal(Donors(x, y).of(open_cases(x, seed=7)[3]), drawn)


def test_a_batch_of_one_class_has_no_donors():
    x = flat(0.1, 0.2)
    assert Donors(x, np.array([1, 1])).of(open_cases(x)[0]).shape == (0, *SHAPE)


def test_the_start_lies_at_the_border_on_the_way_to_a_donor():
    near, case = walk(beyond(0.7), flat(0.5), lambda one: start(one, flat(0.9, 0.95), 1e-3))
    np.testing.assert_allclose(near, 0.7, atol=1e-3)
    np.testing.assert_array_equal(case.best, near)
    # 0.9 itself, nine halvings of its l2 distance 0.98, and 0.95, which is not misclassified any nearer
    assert 100 - case.left == 1 + 10 + 1


def test_a_donor_that_is_misclassified_nearer_takes_over():
    def predict(x):  # class 1 where the first pixel rises by 0.1 or all of them by 0.3
        one, mean = x[:, 0, 0, 0] - 0.6, x.mean(axis=(1, 2, 3)) - 0.8
        return np.stack([np.zeros(len(x)), np.maximum(one, mean)], axis=1)

    first = flat(0.5)[0].copy()
    first[0, 0, 0] = 0.95
    others = np.stack([np.full(SHAPE, 0.95, np.float32), first])
    near, _ = walk(predict, flat(0.5), lambda one: start(one, others, 1e-3))
    np.testing.assert_allclose(near - 0.5, first * 0 + np.where(first == 0.5, 0, 0.1), atol=2e-3)


def test_noise_is_tried_where_no_donor_is_misclassified_and_given_up_after_some_time():
    near, case = walk(beyond(0.55), flat(0.1), lambda one: start(one, flat(0.2), 1e-2), queries=100)
    assert near is not None
    assert near.mean() > 0.55
    assert np.unique(near).size > 1
    nothing, case = walk(beyond(2), flat(0.1), lambda one: start(one, flat(0.2, 0.3), 1e-2))
    assert nothing is None
    assert 100 - case.left == 2 + NOISES
    np.testing.assert_array_equal(case.best, flat(0.1)[0])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_way_to_the_border_keeps_to_the_norm(norm):
    x, far = flat(0.5), np.linspace(0.6, 1, 6, dtype=np.float32).reshape(SHAPE)
    threat = ThreatModel(norm=norm, eps=1e-3)
    near, _ = walk(beyond(0.65), x, lambda one: approach(one, far, 1e-4), threat)
    assert near.mean() == pytest.approx(0.65, abs=1e-3)
    delta = (near - 0.5).ravel()
    if norm == "l2":
        np.testing.assert_allclose(delta / delta.sum(), (far - 0.5).ravel() / (far - 0.5).sum(), atol=1e-5)
    else:  # 0.1, then everything above is clipped to one radius r: 0.1 + 5 r = 6 * 0.15
        np.testing.assert_allclose(delta, [0.1] + [0.16] * 5, atol=1e-3)


def test_the_way_ends_at_eps_and_the_last_question_is_what_the_judge_would_see():
    threat, far = ThreatModel(norm="linf", eps=0.2), flat(1.0)[0]
    near, case = walk(beyond(0.65), flat(0.5), lambda one: approach(one, far, 0.05), threat)
    assert near is None  # broken: the search did not come back
    np.testing.assert_array_equal(case.best, case.within(far))
    near, case = walk(beyond(0.705), flat(0.5), lambda one: approach(one, far, 0.05), threat)
    assert near.mean() == pytest.approx(0.72, abs=0.02)
    assert 100 - case.left == 3 + 1  # 0.35, 0.275, 0.2375, and 0.2 itself, which is just not enough
