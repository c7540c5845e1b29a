from __future__ import annotations

import numpy as np
import torch

from rctk.attacks.adam import Adam
from rctk.attacks.spsa import SPSA
from rctk.threat import ThreatModel

SHAPE = (1, 3, 4)


def test_adam_is_that_of_torch():
    parameter = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    reference = torch.optim.Adam([parameter], lr=0.1)
    ours, at = Adam((5,)), np.zeros(5)
    for gradient in np.random.default_rng(0).normal(size=(20, 5)):
        parameter.grad = torch.from_numpy(gradient.copy())
        reference.step()
        at -= 0.1 * ours.step(gradient)
    np.testing.assert_allclose(at, parameter.detach().numpy(), atol=1e-6)


def test_adam_counts_the_steps_of_each_coordinate():
    adam = Adam((3,))
    adam.step(np.array([5.0]), np.array([0]))
    adam.step(np.array([5.0]), np.array([0]))
    np.testing.assert_allclose(adam.step(np.array([2.0, -9.0]), np.array([1, 2])), [1, -1], rtol=1e-5)


def test_pooled_steps_keep_the_proportions_of_the_gradient():
    step = Adam((4,), pooled=True).step(np.array([1.0, 2.0, -3.0, 0.0]))
    np.testing.assert_allclose(step / step[0], [1, 2, -3, 0], rtol=1e-6)
    np.testing.assert_allclose((step**2).mean(), 1, rtol=1e-5)


def test_probes_are_signs_of_one_size_on_both_sides_and_differ_from_image_to_image():
    asked = []

    def predict(x):
        asked.append(x)
        return np.stack([x.sum(axis=(1, 2, 3)) + 50, np.zeros(len(x))], axis=1)

    x = np.float32([0.5, 0.501])[:, None, None, None] * np.ones((2, *SHAPE), np.float32)
    SPSA(queries=9, samples=8)(predict, x, np.array([0, 0]), ThreatModel(eps=0.1), np.random.default_rng(0))
    probes = (asked[0].reshape(2, 2, 4, *SHAPE) - x[:, None, None]) / 0.01
    np.testing.assert_allclose(np.abs(probes), 1, rtol=1e-4)
    np.testing.assert_allclose(probes[:, 0], -probes[:, 1], rtol=1e-4)
    assert not np.allclose(probes[0], probes[1], rtol=1e-2)
    assert len(asked[1]) == 2  # and a look at where each of them leads


def test_a_plane_is_broken_just_where_its_distance_is_below_eps():
    w = np.random.default_rng(2).normal(size=SHAPE)
    x = np.full((1, *SHAPE), 0.5, dtype=np.float32)
    for norm, length in (("linf", np.abs(w).sum()), ("l2", np.linalg.norm(w))):
        for share, breaks in ((0.85, True), (1.05, False)):
            bias = share * 0.1 * length - w.sum() / 2

            def predict(batch, bias=bias):
                score = (batch.reshape(len(batch), -1) * w.ravel()).sum(axis=1) + bias
                return np.stack([score, np.zeros(len(batch))], axis=1)

            out = SPSA(queries=1500)(
                predict, x, np.array([0]), ThreatModel(norm=norm, eps=0.1), np.random.default_rng(0)
            )
            assert (predict(out).argmax(1) != 0).item() == breaks
