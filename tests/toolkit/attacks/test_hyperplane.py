from __future__ import annotations

import numpy as np
import pytest
import torch
from pyautoattack.fab_projections import projection_l1, projection_l2, projection_linf
from scipy.optimize import linprog, minimize

from rctk.attacks.hyperplane import step_to_hyperplane

OFFICIAL = {"linf": projection_linf, "l2": projection_l2, "l1": projection_l1}
ORDER = {"linf": np.inf, "l2": 2, "l1": 1}


def step(x, w, b, norm):
    return step_to_hyperplane(torch.tensor([x]), torch.tensor([w]), torch.tensor([b]), norm)[0].tolist()


def test_steps_worked_out_by_hand():
    # from (0.5, 0.5) to x + 3 y = 1: 1 too much, which a step of 1 / (1 + 3) in both clears in linf,
    # a step along (1, 3) / 10 in l2, and one of 1 / 3 in the steeper coordinate in l1
    start, w = [0.5, 0.5], [1.0, 3.0]
    assert step(start, w, 1.0, "linf") == pytest.approx([-0.25, -0.25])
    assert step(start, w, 1.0, "l2") == pytest.approx([-0.1, -0.3])
    assert step(start, w, 1.0, "l1") == pytest.approx([0, -1 / 3], abs=1e-6)


def test_a_coordinate_at_the_end_of_the_box_leaves_the_way_to_the_others():
    # 0.7 is to be lost and the first coordinate has only 0.1
    assert step([0.1, 0.9], [1.0, 1.0], 0.3, "linf") == pytest.approx([-0.1, -0.6])
    assert step([0.1, 0.9], [1.0, 1.0], 0.3, "l2") == pytest.approx([-0.1, -0.6])
    assert step([0.1, 0.9], [2.0, 1.0], 0.4, "l1") == pytest.approx([-0.1, -0.5])


@pytest.mark.parametrize("norm", OFFICIAL)
def test_an_unreachable_plane_is_approached_as_far_as_the_box_allows(norm):
    assert step([0.25, 0.5], [1.0, -2.0], -9.0, norm) == pytest.approx([-0.25, 0.5])
    assert step([0.25, 0.5], [0.0, 0.0], 1.0, norm) == [0, 0]


@pytest.mark.parametrize("norm", OFFICIAL)
def test_steps_are_the_official_ones(norm):
    generator = torch.Generator().manual_seed(0)
    x, w = torch.rand(200, 30, generator=generator), torch.randn(200, 30, generator=generator)
    x[:50] = x[:50].round()  # saturated pixels
    w[50:100] *= torch.rand(50, 30, generator=generator) > 0.5  # pixels that do not matter
    b = (w * torch.rand(200, 30, generator=generator)).sum(dim=1)
    ours = step_to_hyperplane(x, w, b, norm)
    torch.testing.assert_close(ours, OFFICIAL[norm](x.clone(), w.clone(), b.clone()), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close((w * (x + ours)).sum(dim=1), b, atol=1e-4, rtol=0)
    assert (x + ours).min() >= -1e-6
    assert (x + ours).max() <= 1 + 1e-6


@pytest.mark.parametrize("norm", OFFICIAL)
def test_no_shorter_step_exists(norm):
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, w = rng.uniform(size=5), rng.normal(size=5)
        b = float(w @ rng.uniform(size=5))
        ours = step_to_hyperplane(*(torch.tensor(np.array([v])) for v in (x, w, b)), norm)[0].numpy()
        assert np.linalg.norm(ours, ORDER[norm]) <= shortest(x, w, b, norm) + 1e-6


def shortest(x, w, b, norm):
    if norm == "l2":
        start = np.clip(x + 0.1, 0, 1) - x
        plane = {"type": "eq", "fun": lambda d: w @ (x + d) - b, "jac": lambda d: w}
        bounds = list(zip(-x, 1 - x, strict=True))
        found = minimize(lambda d: d @ d, start, jac=lambda d: 2 * d, bounds=bounds, constraints=plane, method="SLSQP")
        return np.sqrt(found.fun)
    # rises, falls and, in linf, their bound
    cost = np.append(np.zeros(10), 1) if norm == "linf" else np.append(np.ones(10), 0)
    below = np.hstack([np.eye(10), -np.ones((10, 1))]) if norm == "linf" else None
    found = linprog(
        cost,
        A_ub=below,
        b_ub=np.zeros(10) if norm == "linf" else None,
        A_eq=[np.concatenate([w, -w, [0]])],
        b_eq=[b - w @ x],
        bounds=[*((0, v) for v in 1 - x), *((0, v) for v in x), (0, None)],
    )
    return found.fun


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_gradient_that_is_not_finite_does_not_hold_up_the_others(norm):
    points, w = torch.full((3, 4), 0.5), torch.ones(3, 4)
    w[0, 1], w[1, 2] = torch.nan, torch.inf
    step = step_to_hyperplane(points, w, torch.ones(3), norm)
    torch.testing.assert_close(step[2], torch.full((4,), -0.25))  # 4 * 0.5 is one too many


def test_many_coordinates_end_one_after_the_other():
    # room 0.1, 0.2, ... 0.9 and help 1 each: 0.1 * 9 + 0.1 * 8 + 0.1 * 7 = 2.4 after three ends, 0.3 more at rate 6
    points = torch.arange(1, 10)[None] / 10
    step = step_to_hyperplane(points, torch.ones(1, 9), points.sum(1) - 2.7, "linf")
    torch.testing.assert_close(-step, torch.clamp(points, max=0.35))
