from __future__ import annotations

import numpy as np
import pytest
from scipy.fft import idctn

from rctk.attacks.dct import cosines, image_of, low, wave


@pytest.mark.parametrize("size", [1, 2, 7, 32])
def test_the_basis_is_orthonormal_and_starts_flat(size):
    np.testing.assert_allclose(cosines(size) @ cosines(size).T, np.eye(size), atol=1e-6)
    np.testing.assert_allclose(cosines(size)[0], size**-0.5, rtol=1e-6)


def test_images_agree_with_scipy():
    coefficients = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    padded = np.zeros((3, 9, 7))
    padded[:, :4, :5] = coefficients
    expected = idctn(padded, axes=(1, 2), norm="ortho")
    np.testing.assert_allclose(image_of(coefficients, 9, 7), expected, atol=1e-5)


def test_a_wave_is_one_coefficient():
    coefficients = np.zeros((2, 6, 5), dtype=np.float32)
    coefficients[1, 3, 2] = 1
    np.testing.assert_allclose(wave((2, 6, 5), 1, 3, 2), image_of(coefficients, 6, 5), atol=1e-7)


def test_low_frequencies_are_a_share_but_at_least_eight():
    assert [low(size, 0.25) for size in (3, 8, 32, 224)] == [3, 8, 8, 56]
    assert low(32, 1) == 32
