from __future__ import annotations

import numpy as np
import pytest

from rctk.attacks.signhunter import SignHunter, parts
from rctk.threat import ThreatModel

W = np.array([1.0, -2.0, 3.0, -4.0, 5.0, -6.0, 7.0])


def plane(bias, asked=None):
    def predict(x):
        if asked is not None:
            asked.append(x.copy())
        score = (x.reshape(len(x), -1).astype(np.float64) * W).sum(axis=1) + bias
        return np.stack([score, np.zeros(len(x))], axis=1)

    return predict


def attack(predict, queries, norm="linf"):
    x = np.full((1, 1, 1, 7), 0.5, dtype=np.float32)
    return SignHunter(queries=queries)(
        predict, x, np.array([0]), ThreatModel(norm=norm, eps=0.1), np.random.default_rng(0)
    )


@pytest.mark.parametrize("size", [1, 2, 5, 64, 100])
def test_parts_cover_everything_once(size):
    for level in range(9):
        covered = np.concatenate([np.arange(size)[part] for part in parts(size, 2**level)])
        np.testing.assert_array_equal(covered, np.arange(size))


def test_flips_go_from_the_whole_to_single_pixels():
    asked = []
    attack(plane(50, asked), 1 + 1 + 2 + 4)
    signs = np.sign(np.concatenate(asked).reshape(8, 7) - 0.5).astype(int)
    assert signs[0].tolist() == [1] * 7
    assert signs[1].tolist() == [-1] * 7  # lowers the score, as the weights sum to 4: it stays
    assert signs[2].tolist() == [1, 1, 1, 1, -1, -1, -1]  # the weights of the first half sum to -2: it stays too
    assert signs[3].tolist() == [1] * 7  # those of the second to 6: it does not
    assert signs[4].tolist() == [-1, -1, 1, 1, -1, -1, -1]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_all_signs_are_right_after_one_round(norm):
    # in l2 every pixel moves by eps / sqrt(7); the sum of the weights' sizes is 28
    step = 0.1 if norm == "linf" else 0.1 / np.sqrt(7)
    out = attack(plane(50), 1 + 1 + 2 + 4 + 7, norm)
    np.testing.assert_allclose(out.ravel(), 0.5 - step * np.sign(W), atol=1e-6)


def test_a_plane_is_broken_just_where_its_distance_is_below_eps():
    for share, breaks in ((0.99, True), (1.01, False)):
        predict = plane(share * 0.1 * 28 - W.sum() / 2)
        assert (predict(attack(predict, 40)).argmax(1) != 0).item() == breaks
