from __future__ import annotations

import numpy as np
import pytest

from rctk.attacks.case import cases
from rctk.attacks.rays import RayS, _Ray
from rctk.threat import ThreatModel

TINY = ThreatModel(eps=1e-6)
SHAPE = (1, 6, 7)


def planes(count=10, shape=SHAPE, seed=0, *, levels=None):
    """A plane through a cloud of images near grey, its predict, and the distances in linf."""
    random = np.random.default_rng(seed)
    w = random.normal(size=int(np.prod(shape)))
    x = random.uniform(0.4, 0.6, (count, *shape)).astype(np.float32)
    if levels:
        x = (np.rint(x * levels) / levels).astype(np.float32)
    scores = x.reshape(count, -1) @ w
    bias = -np.median(scores)

    def predict(batch):
        if levels:
            batch = np.rint(batch * levels) / levels
        score = (batch.reshape(len(batch), -1).astype(np.float64) * w).sum(axis=1) + bias
        return np.stack([score, np.zeros(len(batch))], axis=1)

    return predict, x, np.abs(scores + bias) / np.abs(w).sum()


def linf(out, x):
    return np.abs(out - x).reshape(len(x), -1).max(axis=1)


def test_the_radius_of_a_plane_is_the_closed_form():
    predict, x, distance = planes()
    y = predict(x).argmax(axis=1)
    out = RayS(queries=500, quantum=0)(predict, x, y, TINY, np.random.default_rng(0))
    assert (predict(out).argmax(axis=1) != y).all()
    assert (linf(out, x) / distance).max() < 1.01
    assert (linf(out, x) / distance).min() >= 1 - 1e-4


def test_fewer_queries_leave_a_larger_radius():
    predict, x, distance = planes()
    y = predict(x).argmax(axis=1)
    mean = [
        (linf(RayS(queries=q, quantum=0)(predict, x, y, TINY, np.random.default_rng(0)), x) / distance).mean()
        for q in (30, 100, 500)
    ]
    assert mean[0] > mean[1] + 0.05 > mean[2] + 0.1


@pytest.mark.parametrize(("share", "breaks"), [(0.97, True), (1.03, False)])
def test_an_image_breaks_just_where_its_distance_is_below_eps(share, breaks):
    predict, x, distance = planes()
    y = predict(x).argmax(axis=1)
    for row in range(len(x)):
        threat = ThreatModel(eps=distance[row] / share)
        one = slice(row, row + 1)
        out = RayS(queries=600, quantum=0)(predict, x[one], y[one], threat, np.random.default_rng(0))
        assert (predict(threat.project(out, x[one])).argmax(axis=1) != y[one]).item() == breaks


def test_a_ray_moves_whole_quanta_and_its_mean_is_the_radius():
    x = np.full((1, 1, 100, 100), 100 / 255, dtype=np.float32)
    (case,) = cases(x, TINY, np.random.default_rng(0), 1)
    ray = _Ray(case, 1 / 255)
    ray.signs[::2] = -1
    for radius in (3.0, 3.25, 7.9):
        moved = (ray.point(radius / 255) - x[0]).ravel() * ray.signs * 255
        np.testing.assert_allclose(moved, np.rint(moved), atol=1e-4)
        assert set(np.rint(moved)) <= {np.floor(radius), np.ceil(radius)}
        assert moved.mean() == pytest.approx(radius, abs=0.02)
    smooth = _Ray(case, 0)
    np.testing.assert_allclose(smooth.point(0.123) - x[0], 0.123, rtol=1e-5)


def test_an_engine_that_rounds_its_input_does_not_hide_small_radii():
    """With radii that are the same for all pixels the search stalls; spread over the pixels it does not."""
    predict, x, distance = planes(40, (3, 8, 8), levels=255)
    y = predict(x).argmax(axis=1)
    threat = ThreatModel(eps=4 / 255)
    broken = {}
    for quantum in (0, 1 / 255):
        out = RayS(queries=700, quantum=quantum)(predict, x, y, threat, np.random.default_rng(0))
        broken[quantum] = int((predict(threat.project(out, x)).argmax(axis=1) != y).sum())
    possible = int((distance < 4 / 255).sum())
    assert broken[1 / 255] > broken[0]
    assert broken[1 / 255] >= possible - 4
