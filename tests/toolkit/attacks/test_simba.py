from __future__ import annotations

import numpy as np
import pytest

from rctk.attacks.case import cases
from rctk.attacks.simba import SimBA
from rctk.threat import ThreatModel

SHAPE = (2, 3, 4)


def vectors(attack, threat, count, shape=SHAPE):
    """Return the first steps that an attack would try."""
    (case,) = cases(np.full((1, *shape), 0.5, np.float32), threat, np.random.default_rng(0), 99)
    walk = attack._vectors(case)
    return [next(walk) for _ in range(count)]


@pytest.mark.parametrize("basis", ["dct", "pixel"])
def test_steps_are_orthogonal_and_of_one_length(basis):
    walked = vectors(SimBA(basis=basis, step=0.5, quantum=0), ThreatModel(norm="l2", eps=0.8), 24)
    flat = np.stack(walked).reshape(24, -1)
    np.testing.assert_allclose(flat @ flat.T, 0.16 * np.eye(24), atol=1e-6)
    largest = vectors(SimBA(basis=basis, step=0.5, quantum=0), ThreatModel(eps=0.8), 24)
    np.testing.assert_allclose([np.abs(vector).max() for vector in largest], 0.4, rtol=1e-5)


def test_no_step_is_smaller_than_what_the_engine_resolves():
    walked = vectors(SimBA(step=1e-4), ThreatModel(norm="l2", eps=0.1), 24)
    np.testing.assert_allclose([np.abs(vector).max() for vector in walked], 1 / 255, rtol=1e-5)


def test_low_frequencies_come_first():
    attack, shape = SimBA(), (1, 16, 32)
    order = attack._order(shape, np.random.default_rng(0))
    assert sorted(order.tolist()) == list(range(512))
    _, down, across = np.unravel_index(order[:64], shape)
    assert down.max() == across.max() == 7
    assert len(attack._order(shape, np.random.default_rng(1))) == 512


def test_a_step_stays_when_the_probability_falls_and_both_ways_are_tried():
    w, asked = np.float32([3, -2, 1, 0.5]), []

    def predict(x):
        asked.append(x.copy())
        return np.stack([(x.reshape(len(x), -1) * w).sum(axis=1) + 9, np.zeros(len(x))], axis=1)

    x = np.full((1, 1, 2, 2), 0.5, dtype=np.float32)
    out = SimBA(queries=9, basis="pixel", step=1.0)(
        predict, x, np.array([0]), ThreatModel(eps=0.1), np.random.default_rng(0)
    )
    np.testing.assert_allclose(out, x - 0.1 * np.sign(w).reshape(x.shape), atol=1e-6)
    assert 5 <= len(asked) <= 9  # the original, then one or two for each pixel
    np.testing.assert_array_equal(asked[0], x)


def test_it_ends_when_a_whole_round_changes_nothing():
    asked = []

    def predict(x):
        asked.append(len(x))
        return np.tile(np.float32([1, 0]), (len(x), 1))

    x = np.full((1, 1, 2, 3), 0.5, dtype=np.float32)
    SimBA(queries=1000)(predict, x, np.array([0]), ThreatModel(eps=0.1), np.random.default_rng(0))
    assert len(asked) == 1 + 2 * 6
