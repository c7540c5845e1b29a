from __future__ import annotations

import numpy as np
import pytest

from rctk.attacks.noise import Noise
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError

X = np.random.default_rng(0).uniform(0.3, 0.7, (5, 2, 4, 4)).astype(np.float32)
Y = np.zeros(5, dtype=np.int64)


def bright(x):
    """Class 0 unless the first pixel is brighter than the others on average."""
    score = x.reshape(len(x), -1).mean(axis=1) - x[:, 0, 0, 0]
    return np.stack([score + 0.2, np.zeros(len(x))], axis=1).astype(np.float32)


@pytest.mark.parametrize("threat", [ThreatModel(eps=0.1), ThreatModel(norm="l2", eps=0.5)], ids=["linf", "l2"])
def test_more_tries_find_smaller_margins(threat):
    few, many = (bright(Noise(tries=n)(bright, X, Y, threat, np.random.default_rng(0)))[:, 0] for n in (1, 50))
    assert (many <= few).all()
    assert (many < few).any()


def test_noise_fills_the_linf_ball():
    noise = np.abs(Noise(tries=1)(bright, X, Y, ThreatModel(eps=0.1), np.random.default_rng(0)) - X)
    assert 0.09 < noise.max() <= 0.1 + 1e-6
    assert noise.min() < 0.01


def test_noise_lies_on_the_l2_sphere():
    out = Noise(tries=1)(bright, X, Y, ThreatModel(norm="l2", eps=0.3), np.random.default_rng(0))
    np.testing.assert_allclose(np.sqrt(((out - X) ** 2).sum(axis=(1, 2, 3))), 0.3, atol=1e-5)


def test_a_broken_image_is_not_asked_again():
    asked = []

    def never_right(x):
        asked.append(len(x))
        return np.stack([np.zeros(len(x)), np.ones(len(x))], axis=1).astype(np.float32)

    Noise(tries=9)(never_right, X, Y, ThreatModel(), np.random.default_rng(0))
    assert asked == [5]


def test_no_tries_are_refused():
    with pytest.raises(OptionError):
        Noise(tries=0)
