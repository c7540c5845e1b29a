from __future__ import annotations

import numpy as np
import pytest

from rctk.attacks.zoo import ZOO, _Blocks
from rctk.threat import ThreatModel


def test_blocks_cover_every_pixel_once():
    blocks = _Blocks((2, 5, 7), 3)
    assert blocks.count == 2 * 3 * 3
    each = blocks.spread_each(np.arange(blocks.count))
    assert (each.sum(axis=0) == 1).all()
    sizes = each.reshape(blocks.count, -1).sum(axis=1)
    assert sizes.min() >= 2
    assert sizes.max() <= 6


@pytest.mark.parametrize("side", [0, 1, 2, 4, 9])
def test_spreading_and_taking_means_are_inverse(side):
    blocks = _Blocks((3, 4, 6), side)
    assert blocks.count == {0: 72, 1: 3, 2: 12, 4: 48, 9: 72}[side]
    values = np.random.default_rng(0).normal(size=blocks.count).astype(np.float32)
    np.testing.assert_allclose(blocks.mean(blocks.spread(values)), values, rtol=1e-5)


def test_a_step_probes_other_pixels_than_the_one_before_until_all_had_their_turn():
    asked = []

    def predict(x):
        asked.append(x)
        return np.stack([x.sum(axis=(1, 2, 3)) + 50, np.zeros(len(x))], axis=1)

    x = np.full((1, 1, 4, 4), 0.5, dtype=np.float32)
    ZOO(queries=36, coordinates=4, space=0, quantum=0, step=1e-6)(
        predict, x, np.array([0]), ThreatModel(eps=0.1), np.random.default_rng(0)
    )
    assert [len(part) for part in asked] == [8, 1] * 4
    touched = [np.flatnonzero(np.abs(one - 0.5) > 5e-5) for part in asked[::2] for one in part.reshape(len(part), -1)]
    assert all(len(one) == 1 for one in touched)
    assert np.bincount(np.concatenate(touched)).tolist() == [2] * 16


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_plane_is_broken_just_where_its_distance_is_below_eps(norm):
    w = np.random.default_rng(2).normal(size=(1, 3, 4))
    x = np.full((1, 1, 3, 4), 0.5, dtype=np.float32)
    length = np.abs(w).sum() if norm == "linf" else np.linalg.norm(w)
    for share, breaks in ((0.95, True), (1.05, False)):
        bias = share * 0.1 * length - w.sum() / 2

        def predict(batch, bias=bias):
            score = (batch.reshape(len(batch), -1).astype(np.float64) * w.ravel()).sum(axis=1) + bias
            return np.stack([score, np.zeros(len(batch))], axis=1)

        out = ZOO(queries=400)(predict, x, np.array([0]), ThreatModel(norm=norm, eps=0.1), np.random.default_rng(0))
        assert (predict(out).argmax(1) != 0).item() == breaks
