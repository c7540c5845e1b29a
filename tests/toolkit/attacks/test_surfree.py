from __future__ import annotations

import numpy as np
import pytest

from rctk.attacks.case import cases
from rctk.attacks.lockstep import fooled, lockstep
from rctk.attacks.surfree import SurFree, _Arc, _Directions
from rctk.threat import ThreatModel

TINY = ThreatModel(norm="l2", eps=1e-6)
SHAPE = (1, 4, 5)


def cloud(count=12, shape=SHAPE, seed=0):
    """A plane through a cloud of images near grey: its predict, the images and their distances."""
    random = np.random.default_rng(seed)
    w = random.normal(size=int(np.prod(shape)))
    x = random.uniform(0.4, 0.6, (count, *shape)).astype(np.float32)
    scores = x.reshape(count, -1) @ w
    bias = -np.median(scores)

    def predict(batch):
        score = (batch.reshape(len(batch), -1).astype(np.float64) * w).sum(axis=1) + bias
        return np.stack([score, np.zeros(len(batch))], axis=1)

    return predict, x, np.abs(scores + bias) / np.linalg.norm(w)


def one_case(shape=SHAPE, queries=1000):
    return cases(np.full((1, *shape), 0.5, np.float32), TINY, np.random.default_rng(0), queries)[0]


def pointing(case, *coordinates):
    delta = np.zeros(case.x.size, dtype=np.float32)
    delta[: len(coordinates)] = coordinates
    return delta.reshape(case.x.shape)


@pytest.mark.parametrize("quantum", [0, 1 / 255])
def test_a_plane_is_approached_to_its_closed_form(quantum):
    predict, x, distance = cloud()
    y = predict(x).argmax(axis=1)
    out = SurFree(queries=1000, quantum=quantum)(predict, x, y, TINY, np.random.default_rng(0))
    assert (predict(out).argmax(axis=1) != y).all()
    excess = np.linalg.norm((out - x).reshape(len(x), -1), axis=1) - distance
    assert excess.min() > -1e-6
    assert (excess <= 0.02 * distance + 1e-3).all()


def test_more_queries_come_nearer():
    predict, x, _ = cloud(shape=(3, 8, 8))
    y = predict(x).argmax(axis=1)
    mean = [
        np.linalg.norm((SurFree(queries=q)(predict, x, y, TINY, np.random.default_rng(0)) - x).reshape(12, -1), axis=1)
        for q in (30, 200, 1000)
    ]
    assert mean[0].mean() > 1.2 * mean[1].mean() > 1.4 * mean[2].mean()


@pytest.mark.parametrize("shape", [(1, 12, 16), (3, 32, 32)], ids=str)
def test_directions_are_orthogonal_smooth_and_across_the_way_inwards(shape):
    case = one_case(shape)
    directions, near = _Directions(case, 0.25), case.x + np.float32(0.01) * np.ones(shape, np.float32)
    drawn = np.stack([directions.draw(near) for _ in range(40)]).reshape(40, -1)
    inwards = np.ones(drawn.shape[1]) / np.sqrt(drawn.shape[1])
    np.testing.assert_allclose(drawn @ inwards, 0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1, rtol=1e-5)
    gram = drawn @ drawn.T - np.eye(40)
    assert np.abs(gram).max() < 0.1  # what the way inwards takes from each
    neighbours = drawn.reshape(40, *shape)
    assert np.abs(np.diff(neighbours, axis=-1)).mean() < np.abs(neighbours).mean()  # 1.4 times in white noise


def test_directions_begin_again_when_they_fill_the_space():
    case = one_case((1, 2, 2))
    directions, near = _Directions(case, 0.25), case.x + pointing(case, 0.1)
    for _ in range(50):
        direction = directions.draw(near)
        assert np.linalg.norm(direction) == pytest.approx(1, rel=1e-4)
        assert abs(direction.ravel()[0]) < 1e-4


def test_points_of_the_arc_see_the_diameter_under_a_right_angle():
    case, asked = one_case(), []
    near, across = case.x + pointing(case, 0.2), pointing(case, 0, 1)
    arc = _Arc(case, near, across)

    def search(one):
        for angle in (0.0, 0.3, -0.5):
            yield from arc.ask(angle)

    def predict(batch):
        asked.append(batch[0])
        return np.eye(2)[np.zeros(len(batch), dtype=int)]

    lockstep(predict, np.array([0]), [case], search, fooled)
    np.testing.assert_allclose(asked[0], near, atol=1e-6)
    for point, angle in zip(asked[1:], (0.3, -0.5), strict=True):
        assert np.linalg.norm(point - case.x) == pytest.approx(0.2 * np.cos(angle), rel=1e-5)
        assert ((point - case.x) * (point - near)).sum() == pytest.approx(0, abs=1e-7)
        assert (point - case.x).ravel()[1] == pytest.approx(0.2 * np.cos(angle) * np.sin(angle), rel=1e-4)


def test_the_angle_is_bisected_to_the_border():
    """Misclassified where the second coordinate is at least half of the first: up to the angle atan(1/2)."""
    case, found = one_case(), []
    near, across = case.x + pointing(case, 0.2), pointing(case, 0, 1)
    arc = _Arc(case, near, across)

    def predict(batch):
        delta = (batch - 0.5).reshape(len(batch), -1)
        return np.stack([np.zeros(len(batch)), 0.5 * delta[:, 0] - delta[:, 1] + 1e-9], axis=1)

    def search(one):
        start = yield from arc.ask(0.1)
        found.append((yield from arc.bisect(start, 0.1, 1.2, 1e-4)))

    lockstep(predict, np.array([0]), [case], search, fooled)
    assert np.linalg.norm(found[0] - case.x) == pytest.approx(0.2 * np.cos(np.arctan(0.5)), abs=2e-4)
