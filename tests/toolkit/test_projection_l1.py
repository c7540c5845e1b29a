from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from rctk.attacks import l1
from rctk.projection_l1 import shrink_l1
from rctk.threat import ThreatModel


def both(delta, room, radius):
    """Project one difference with the NumPy and with the torch code."""
    delta, room = np.atleast_2d(delta).astype(np.float64), np.atleast_2d(room).astype(np.float64)
    ours = shrink_l1(delta, room, radius)
    twin = l1.shrink_l1(torch.from_numpy(delta), torch.from_numpy(room), torch.full((len(delta),), float(radius)))
    np.testing.assert_allclose(twin.numpy(), ours, atol=1e-6)
    return ours


def test_values_worked_out_by_hand():
    # 0.3, 0.5 and 0.1 shrink together: at t = 0.1 the sum is 0.2 + 0.4 + 0, at t = 0.2 it is 0.1 + 0.3
    np.testing.assert_allclose(both([0.3, -0.5, 0.1], [1, 1, 1], 0.4), [[0.1, -0.3, 0]])
    # the first value is cut to 0.4 by its room, so it only starts to shrink at t = 0.5
    np.testing.assert_allclose(both([0.9, -0.5, 0.1], [0.4, 1, 1], 0.7), [[0.4, -0.3, 0]])
    np.testing.assert_allclose(both([0.9, -0.5], [0.4, 1], 0.2), [[0.2, 0]])


def test_what_fits_is_only_cut_to_its_room():
    np.testing.assert_array_equal(both([0.5, -0.25, 0.0], [0.25, 1, 0], 1), [[0.25, -0.25, 0]])


def test_clipping_after_an_ordinary_projection_is_farther_away():
    delta, room = np.array([[2.0, 1.0, 0.0]]), np.array([[0.3, 1.0, 1.0]])
    t = 0.9  # the ordinary projection onto radius 1.2: sizes 1.1 and 0.1
    clipped = np.clip(np.abs(delta) - t, 0, room)
    ours = both(delta, room, 1.2)
    np.testing.assert_allclose(ours, [[0.3, 0.9, 0]])
    assert ((ours - delta) ** 2).sum() < ((clipped - delta) ** 2).sum()


@given(
    st.lists(st.tuples(st.floats(-2, 2), st.floats(0, 1)), min_size=1, max_size=6),
    st.floats(0.01, 3),
)
@settings(max_examples=60, deadline=None)
def test_no_other_point_inside_is_nearer(pairs, radius):
    delta, x0 = np.array(pairs).T
    room = np.where(delta > 0, 1 - x0, x0)
    ours = both(delta, room, radius)[0]
    assert np.abs(ours).sum() <= radius * (1 + 1e-9)
    assert (np.abs(ours) <= room + 1e-12).all()
    # split the difference into its two signs: then the constraints are linear and a solver finds the optimum
    d = len(delta)
    best = minimize(
        lambda v: ((v[:d] - v[d:] - delta) ** 2).sum(),
        np.zeros(2 * d),
        jac=lambda v: np.concatenate([2 * (v[:d] - v[d:] - delta), -2 * (v[:d] - v[d:] - delta)]),
        bounds=[(0, 1 - a) for a in x0] + [(0, a) for a in x0],
        constraints={"type": "ineq", "fun": lambda v: radius - v.sum(), "jac": lambda v: -np.ones(2 * d)},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 300},
    )
    assert ((ours - delta) ** 2).sum() <= best.fun + 1e-6


def test_rows_do_not_depend_on_each_other():
    rng = np.random.default_rng(0)
    delta, room = rng.normal(size=(20, 12)), rng.uniform(size=(20, 12))
    whole = both(delta, room, 1.5)
    for row in range(20):
        np.testing.assert_allclose(both(delta[row], room[row], 1.5)[0], whole[row], atol=1e-12)


def test_torch_takes_a_radius_per_image():
    delta = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    out = l1.shrink_l1(delta, torch.ones_like(delta), torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(out, torch.tensor([[0.25, 0.25], [0.5, 0.5]]))


@pytest.mark.parametrize("grid", ["float", "uint8"])
def test_images_end_in_the_ball_the_box_and_on_the_grid(grid):
    rng = np.random.default_rng(0)
    x0 = (rng.integers(0, 256, (6, 3, 4, 5)) / 255).astype(np.float32)
    x = (x0 + rng.normal(0, 0.5, x0.shape)).astype(np.float32)
    threat = ThreatModel(norm="l1", eps=3, grid=grid)
    out = threat.project(x, x0)
    length = np.abs(out.astype(np.float64) - x0).sum(axis=(1, 2, 3))
    assert (length <= 3 * (1 + 1e-6)).all()
    assert out.min() >= 0
    assert out.max() <= 1
    if grid == "float":
        assert (length > 3 * (1 - 1e-5)).all()
        np.testing.assert_allclose(threat.project(out, x0), out, atol=1e-7)
    else:
        np.testing.assert_allclose(out * 255, np.rint(out * 255), atol=1e-4)
        np.testing.assert_array_equal(threat.project(out, x0), out)
