import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError

GRID = (np.arange(256) / 255).astype(np.float32)
SETTINGS = [
    ThreatModel(norm="linf", eps=8 / 255),
    ThreatModel(norm="linf", eps=8 / 255, grid="uint8"),
    ThreatModel(norm="linf", eps=1 / 255, grid="uint8"),
    ThreatModel(norm="linf", eps=float(np.float32(2 / 255)), grid="uint8"),
    ThreatModel(norm="l2", eps=0.5),
    ThreatModel(norm="l2", eps=0.5, grid="uint8"),
    ThreatModel(norm="l2", eps=1 / 255, grid="uint8"),
    ThreatModel(norm="l2", eps=20.0, grid="uint8"),
]


def draw(seed: int, *, original_on_grid: bool, spread: float, shape=(3, 2, 5, 4)):
    """Originals, and proposals at distances from far inside to far outside of every budget."""
    rng = np.random.default_rng(seed)
    x0 = GRID[rng.integers(0, 256, shape)] if original_on_grid else rng.random(shape, dtype=np.float32)
    x = x0 + rng.normal(0, spread, shape) * rng.integers(0, 2, shape)
    return x.astype(np.float32), x0


def distance(threat: ThreatModel, a, b):
    delta = np.abs(a.astype(np.float64) - b.astype(np.float64)).reshape(len(a), -1)
    return delta.max(axis=1) if threat.norm == "linf" else np.sqrt((delta**2).sum(axis=1))


@pytest.mark.parametrize("threat", SETTINGS, ids=repr)
@settings(deadline=None)
@given(seed=st.integers(0, 10**6), spread=st.sampled_from([0.001, 0.01, 0.1, 3.0]), on_grid=st.booleans())
def test_projection_keeps_budget_range_and_repeats(threat, seed, spread, on_grid):
    x, x0 = draw(seed, original_on_grid=on_grid, spread=spread)
    out = threat.project(x, x0)
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    assert out.min() >= 0
    assert out.max() <= 1
    assert distance(threat, out, x0).max() <= threat.eps * (1 + 1e-6) + 1e-7  # the judge's own tolerance
    np.testing.assert_array_equal(threat.project(out, x0), out)


@pytest.mark.parametrize("threat", [t for t in SETTINGS if t.grid == "uint8"], ids=repr)
@settings(deadline=None)
@given(seed=st.integers(0, 10**6), spread=st.sampled_from([0.001, 0.1, 3.0]))
def test_every_pixel_is_one_of_256_levels(threat, seed, spread):
    x, x0 = draw(seed, original_on_grid=True, spread=spread)
    assert np.isin(threat.project(x, x0), GRID).all()


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), spread=st.sampled_from([0.01, 3.0]))
def test_linf_puts_originals_off_the_grid_on_it(seed, spread):
    x, x0 = draw(seed, original_on_grid=False, spread=spread)
    assert np.isin(ThreatModel(eps=1 / 255, grid="uint8").project(x, x0), GRID).all()


@settings(deadline=None)
@given(seed=st.integers(0, 10**6))
def test_l2_grid_leaves_a_pixel_that_reaches_no_level_at_the_original(seed):
    x, x0 = draw(seed, original_on_grid=False, spread=0.1)
    out = ThreatModel(norm="l2", eps=0.05, grid="uint8").project(x, x0)
    assert (np.isin(out, GRID) | (out == x0)).all()


@pytest.mark.parametrize("threat", SETTINGS, ids=repr)
def test_images_inside_the_budget_stay_bit_for_bit(threat):
    _, x0 = draw(1, original_on_grid=True, spread=0)
    np.testing.assert_array_equal(threat.project(x0, x0), x0)
    x = x0.copy()
    x[:, 0, 0, 0] = np.where(x0[:, 0, 0, 0] > 0.5, x0[:, 0, 0, 0] - GRID[1], x0[:, 0, 0, 0] + GRID[1])
    x = x if threat.grid == "float" else GRID[np.rint(x * 255).astype(int)]
    np.testing.assert_array_equal(threat.project(x, x0), x)


@pytest.mark.parametrize("eps", [8 / 255, float(np.float32(8 / 255)), 0.031372549])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_eight_levels_are_reached_from_every_level(norm, eps):
    x0 = GRID[:248].reshape(-1, 1, 1, 1)
    out = ThreatModel(norm=norm, eps=eps, grid="uint8").project(x0 + 1, x0)
    np.testing.assert_array_equal(out.ravel(), GRID[8:])


def test_linf_grid_takes_the_nearest_level_by_hand():
    x0 = GRID[[100, 100, 100, 100, 2, 253]].reshape(1, 1, 1, 6)
    x = (np.array([100.4, 100.6, 103.9, 99.4, -7, 300], dtype=np.float32) / 255).reshape(1, 1, 1, 6)
    out = ThreatModel(eps=3 / 255, grid="uint8").project(x, x0)
    assert np.rint(out * 255).ravel().tolist() == [100, 101, 103, 99, 0, 255]


def test_l2_scales_to_the_radius_by_hand():
    x0 = np.full((1, 1, 1, 2), 0.5, dtype=np.float32)
    x = x0 + np.array([0.3, -0.4], dtype=np.float32)  # length 0.5, so half of it is left
    out = ThreatModel(norm="l2", eps=0.25).project(x, x0)
    np.testing.assert_allclose(out.ravel(), [0.65, 0.3], atol=1e-7)


def test_l2_grid_rounds_towards_the_original_by_hand():
    x0 = GRID[[100, 100]].reshape(1, 1, 1, 2)
    x = GRID[[130, 60]].reshape(1, 1, 1, 2)  # length 50 levels; 9/50 of it: 5.4 and -7.2 levels
    out = ThreatModel(norm="l2", eps=9 / 255, grid="uint8").project(x, x0)
    assert np.rint(out * 255).ravel().tolist() == [105, 93]


def test_l2_budget_holds_where_all_roundings_add_up():
    x0 = np.full((1, 3, 32, 32), 0.7, dtype=np.float32)
    for step in np.linspace(0.01, 0.2, 50, dtype=np.float32):
        out = ThreatModel(norm="l2", eps=0.5).project(x0 + step, x0)
        assert distance(ThreatModel(norm="l2"), out, x0)[0] <= 0.5 * (1 + 1e-6)


def test_linf_clips_to_budget_and_range_by_hand():
    x0 = np.array([0.0, 0.5, 1.0], dtype=np.float32).reshape(1, 1, 1, 3)
    x = np.array([-1.0, 0.55, 0.3], dtype=np.float32).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(ThreatModel(eps=0.1).project(x, x0).ravel(), [0, 0.55, 0.9])


@pytest.mark.parametrize("threat", SETTINGS, ids=repr)
def test_no_images_give_no_images(threat):
    empty = np.empty((0, 3, 4, 4), dtype=np.float32)
    assert threat.project(empty, empty).shape == (0, 3, 4, 4)


def test_proposals_of_higher_precision_and_strided_arrays_are_accepted():
    x, x0 = draw(3, original_on_grid=True, spread=0.1)
    for threat in SETTINGS:
        out = threat.project(x.astype(np.float64).transpose(0, 1, 3, 2), x0.transpose(0, 1, 3, 2))
        np.testing.assert_array_equal(out, threat.project(x, x0).transpose(0, 1, 3, 2))


@pytest.mark.parametrize("eps", [0, -1 / 255, math.nan, math.inf])
def test_a_budget_that_is_no_positive_number_is_refused(eps):
    with pytest.raises(OptionError, match="positive number"):
        ThreatModel(eps=eps)


def test_eps_in_pixel_units_is_refused_with_the_likely_meaning():
    with pytest.raises(OptionError, match="8/255"):
        ThreatModel(eps=8)


def test_a_budget_below_one_level_is_refused_on_the_grid():
    with pytest.raises(OptionError, match="no pixel could change"):
        ThreatModel(eps=0.9 / 255, grid="uint8")
    ThreatModel(eps=float(np.float32(1 / 255)), grid="uint8")


@pytest.mark.parametrize("words", [{"norm": "l0"}, {"grid": "int8"}])
def test_unknown_words_are_refused(words):
    with pytest.raises(OptionError, match="must be"):
        ThreatModel(**words)
