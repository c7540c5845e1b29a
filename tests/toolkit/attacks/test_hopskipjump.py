from __future__ import annotations

import numpy as np
import pytest

from rctk.attacks.case import cases
from rctk.attacks.hopskipjump import HopSkipJump, _leap, _normal
from rctk.attacks.lockstep import fooled, lockstep
from rctk.threat import ThreatModel

SHAPE = (1, 4, 5)


def cloud(count=12, shape=SHAPE, seed=0):
    """A plane through a cloud of images near grey: its normal, its predict and the images."""
    random = np.random.default_rng(seed)
    w = random.normal(size=shape)
    x = random.uniform(0.4, 0.6, (count, *shape)).astype(np.float32)
    bias = -np.median((x * w).sum(axis=(1, 2, 3)))

    def predict(batch):
        score = (batch.reshape(len(batch), -1).astype(np.float64) * w.ravel()).sum(axis=1) + bias
        return np.stack([score, np.zeros(len(batch))], axis=1)

    return w, predict, x


def sizes(delta, norm):
    flat = delta.reshape(len(delta), -1)
    return np.abs(flat).max(axis=1) if norm == "linf" else np.linalg.norm(flat, axis=1)


@pytest.mark.parametrize("quantum", [0, 1 / 255])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_plane_is_approached_to_its_closed_form(norm, quantum):
    w, predict, x = cloud()
    logits = predict(x)
    y = logits.argmax(axis=1)
    distance = np.abs(logits[:, 0]) / (np.abs(w).sum() if norm == "linf" else np.linalg.norm(w))
    threat = ThreatModel(norm=norm, eps=1e-6)
    out = HopSkipJump(queries=2000, quantum=quantum)(predict, x, y, threat, np.random.default_rng(0))
    assert (predict(out).argmax(axis=1) != y).all()
    excess = sizes(out - x, norm) - distance
    assert excess.min() > -1e-6
    assert (excess <= 0.1 * distance + quantum).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_more_queries_come_nearer(norm):
    _, predict, x = cloud()
    y = predict(x).argmax(axis=1)
    threat = ThreatModel(norm=norm, eps=1e-6)
    mean = [
        sizes(HopSkipJump(queries=q)(predict, x, y, threat, np.random.default_rng(0)) - x, norm).mean()
        for q in (20, 150, 1000)
    ]
    assert mean[0] > 1.1 * mean[1] > 1.2 * mean[2]


def within_a_search(predict, x, threat, search):
    (case,), results = cases(x, threat, np.random.default_rng(0), 5000), []

    def keep(one):
        results.append((yield from search(one)))

    lockstep(predict, np.array([0]), [case], keep, fooled)
    return results[0]


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("offset", [0.0, 0.005])
def test_the_normal_points_to_where_probes_are_misclassified(norm, offset):
    """Also from a point that lies a little on one side, where most probes agree: that is what the baseline is for."""
    w, _, _ = cloud()
    unit = (w / np.linalg.norm(w)).astype(np.float32)
    x = np.full((1, *SHAPE), 0.5, dtype=np.float32)

    def predict(batch):
        score = ((batch - 0.5) * unit).sum(axis=(1, 2, 3)) + offset
        return np.stack([np.zeros(len(batch)), score], axis=1)  # misclassified along +w

    found = within_a_search(predict, x, ThreatModel(norm=norm, eps=1e-6), lambda one: _normal(one, one.x, 0.02, 3000))
    assert (found * unit).sum() / np.linalg.norm(found) > 0.95


@pytest.mark.parametrize("said", [0, 1])
def test_where_all_probes_agree_the_normal_is_their_mean_towards_or_away(said):
    x = np.full((1, *SHAPE), 0.5, dtype=np.float32)
    seen = []

    def predict(batch):
        seen.append(batch - x)
        return np.eye(2)[np.full(len(batch), said)]

    found = within_a_search(predict, x, ThreatModel(norm="l2", eps=1e-6), lambda one: _normal(one, one.x, 0.02, 100))
    mean = np.concatenate(seen).mean(axis=0) * (1 if said else -1)
    np.testing.assert_allclose(found / np.linalg.norm(found), mean / np.linalg.norm(mean), atol=1e-3)


def test_a_leap_is_halved_until_it_is_misclassified():
    x = np.full((1, *SHAPE), 0.2, dtype=np.float32)
    way = np.ones(SHAPE, dtype=np.float32)

    def band(batch):  # class 1 between 0.25 and 0.35
        return np.stack([np.full(len(batch), 0.05), 0.1 - np.abs(batch.mean(axis=(1, 2, 3)) - 0.3)], axis=1)

    threat = ThreatModel(norm="l2", eps=1e-6)
    np.testing.assert_allclose(within_a_search(band, x, threat, lambda one: _leap(one, one.x, way, 0.4)), 0.3)
    assert within_a_search(band, x, threat, lambda one: _leap(one, one.x, -way, 0.4)) is None


def test_probes_are_as_large_as_what_the_engine_resolves():
    _, predict, x = cloud()
    y, asked = predict(x).argmax(axis=1), []

    def noting(batch):
        asked.append(batch.copy())
        return predict(batch)

    one = np.flatnonzero(y == 0)[:1]
    threat = ThreatModel(norm="l2", eps=1e-6)
    HopSkipJump(queries=600, quantum=1 / 255)(noting, x[one], y[one], threat, np.random.default_rng(0))
    packs = [batch for batch in asked if len(batch) > 20]
    rms = [np.sqrt(((batch - batch.mean(axis=0)) ** 2).mean()) for batch in packs[2:]]  # the first normal has its own
    assert min(rms) == pytest.approx(1 / 255, rel=0.1)
