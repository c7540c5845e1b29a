from __future__ import annotations

import numpy as np
import pytest

from rctk.attacks.draws import base_seed, below, image_seeds, noise_l2, normal, uniform, words

SEEDS = np.array([1234567, 99], dtype=np.uint64)


def test_words_are_those_of_splitmix64():
    # the published test vector for seed 1234567
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert words(SEEDS, 0, 4)[0].tolist() == expected
    assert words(SEEDS, 2, 2)[0].tolist() == expected[2:]


def test_a_seed_depends_on_pixels_and_base_but_not_on_the_batch():
    x = np.random.default_rng(0).random((6, 1, 3, 3)).astype(np.float32)
    seeds = image_seeds(x, 7)
    assert len(set(seeds.tolist())) == 6
    np.testing.assert_array_equal(image_seeds(x[3:5], 7), seeds[3:5])
    assert not (image_seeds(x, 8) == seeds).any()
    assert image_seeds(x[:0], 7).shape == (0,)


def test_the_base_comes_from_the_generator():
    draws = [base_seed(np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("limit", [1, 2, 7, 32])
def test_below_reaches_every_number_up_to_the_limit_and_no_further(limit):
    numbers = below(words(SEEDS, 0, 2000), limit)
    assert np.unique(numbers).tolist() == list(range(limit))


def test_uniform_numbers_fill_the_unit_interval():
    u = uniform(SEEDS, (100, 100))
    assert u.shape == (2, 100, 100)
    assert u.dtype == np.float32
    assert 0 <= u.min() < 1e-3
    assert 1 - 1e-3 < u.max() < 1
    assert abs(u.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(u[0].ravel(), u[1].ravel())[0, 1]) < 0.04
    assert abs(np.corrcoef(u[0].ravel(), uniform(SEEDS, (100, 100), stream=1)[0].ravel())[0, 1]) < 0.04


def test_normal_numbers_have_the_moments_of_the_standard_normal():
    z = normal(SEEDS, (100, 100)).ravel()
    assert np.isfinite(z).all()
    assert abs(z.mean()) < 0.03
    assert abs(z.std() - 1) < 0.03
    assert abs((np.abs(z) > 1.96).mean() - 0.05) < 0.01


def test_directions_have_length_one():
    lengths = np.linalg.norm(noise_l2(SEEDS, (3, 4, 5)).reshape(2, -1), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-6)
