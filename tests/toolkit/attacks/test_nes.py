from __future__ import annotations

import numpy as np
import pytest

from rctk.attacks.case import cases
from rctk.attacks.differences import per_pixel, slope, steepest
from rctk.attacks.lockstep import lockstep, margin
from rctk.attacks.nes import NES
from rctk.threat import ThreatModel

SHAPE = (1, 3, 4)


def plane(w, bias=0.0):
    def predict(x):
        score = (x.reshape(len(x), -1).astype(np.float64) * w.ravel()).sum(axis=1) + bias
        return np.stack([score, np.zeros(len(x))], axis=1)

    return predict


def grey(count=1):
    return np.full((count, *SHAPE), 0.5, dtype=np.float32)


def estimated(w, pairs, step, queries=10_000):
    """Return the slope that probes find at a grey image, and the queries that were left."""
    (case,), found = cases(grey(), ThreatModel(eps=1e-9), np.random.default_rng(0), queries), []

    def search(one):
        draw = lambda count: one.rng.standard_normal((count, *SHAPE), dtype=np.float32)  # noqa: E731
        found.append((yield from slope(one, one.x, step, pairs, draw)))

    lockstep(plane(w, 100), np.array([0]), [case], search, margin)
    return found[0], case.left


def test_the_slope_of_a_plane_is_found_for_any_size_of_probe():
    w = np.random.default_rng(1).normal(size=SHAPE)
    for step in (1e-3, 0.05):
        found, left = estimated(w, 4000, step)
        assert left == 2000
        np.testing.assert_allclose(found, w, atol=0.25)


def test_a_slope_takes_what_the_budget_leaves_and_only_whole_pairs():
    assert estimated(np.ones(SHAPE), 100, 0.01, queries=7)[1] == 1
    found, left = estimated(np.ones(SHAPE), 100, 0.01, queries=1)
    assert (left, np.abs(found).max()) == (1, 0)


def test_directions_of_descent_have_length_one():
    uphill = np.array([[[3.0, -4.0, 0.0]]], dtype=np.float32)
    assert steepest(uphill, "linf").tolist() == [[[-1, 1, 0]]]
    np.testing.assert_allclose(steepest(uphill, "l2"), [[[-0.6, 0.8, 0]]], rtol=1e-6)
    assert not steepest(np.zeros_like(uphill), "l2").any()


def test_the_budget_of_a_pixel():
    (case,) = cases(np.zeros((1, 1, 2, 8), np.float32), ThreatModel(norm="l2", eps=2), np.random.default_rng(0), 1)
    assert per_pixel(case) == 0.5


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_plane_is_broken_just_where_its_distance_is_below_eps(norm):
    w = np.random.default_rng(2).normal(size=SHAPE)
    length = np.abs(w).sum() if norm == "linf" else np.linalg.norm(w)
    threat = ThreatModel(norm=norm, eps=0.1)
    for share, breaks in ((0.85, True), (1.05, False)):
        predict = plane(w, share * 0.1 * length - w.sum() / 2)
        out = NES(queries=1500)(predict, grey(), np.array([0]), threat, np.random.default_rng(0))
        assert (predict(out).argmax(1) != 0).item() == breaks


def test_by_default_a_probe_is_a_level_of_a_camera():
    asked = []

    def predict(x):
        asked.append(x - 0.5)
        return plane(np.ones(SHAPE), 50)(x)

    NES(queries=51)(predict, grey(), np.array([0]), ThreatModel(eps=0.1), np.random.default_rng(0))
    assert np.concatenate(asked[:1]).std() == pytest.approx(1 / 255, rel=0.15)
    asked.clear()
    NES(queries=51, quantum=0)(predict, grey(), np.array([0]), ThreatModel(eps=0.1), np.random.default_rng(0))
    assert np.concatenate(asked[:1]).std() == pytest.approx(1e-3, rel=0.15)
