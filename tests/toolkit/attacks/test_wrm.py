from __future__ import annotations

import pytest
import torch
from torch import nn

from rctk.attacks.closest import sizes
from rctk.attacks.wrm import WRM
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError

THREAT = ThreatModel(norm="l2", eps=8)


class Constant(nn.Module):
    """Two logits whose cross-entropy has the same gradient everywhere, for labels of class 0: minus one half."""

    def __init__(self):
        super().__init__()
        self.slope = 2.0

    def forward(self, x):
        value = x.flatten(1).sum(1)
        half = torch.zeros_like(value)
        # softmax of (v, 0) at v = 0 by value, yet with the slope of v
        return torch.stack([half + self.slope * (value - value.detach()), half], dim=1)


def test_the_iterates_are_those_of_the_paper():
    # the gradient of the cross-entropy is -(1 - p) * 2 = -1 at every point, in every pixel
    a, x = 0.1, torch.full((1, 1, 1, 2), 0.9)
    found = WRM(steps=2, strength=a)(Constant(), x, torch.tensor([0]), THREAT, torch.Generator())
    first = -a
    second = first + (-a - first) / 2**0.5  # the pull back to the original makes the step zero
    third = second + (-a - second) / 3**0.5
    assert third == pytest.approx(-a)
    torch.testing.assert_close(found, x + third)


def test_the_last_step_is_scaled_by_its_number(digits):
    x, y = torch.from_numpy(digits.split.images[:20]), torch.from_numpy(digits.split.labels[:20])

    def slope(at):
        leaf = at.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(digits.plain(leaf), y, reduction="sum"), leaf)
        return gradient

    adv = x + 0.3 * slope(x)
    adv = adv + (0.3 * slope(adv) - (adv - x)) / 2**0.5
    adv = adv + (0.3 * slope(adv) - (adv - x)) / 3**0.5
    found = WRM(steps=2)(digits.plain, x, y, THREAT, torch.Generator())
    with torch.no_grad():
        right = digits.plain(x).argmax(1) == y
    torch.testing.assert_close(found[right], adv.clamp(0, 1)[right], atol=1e-5, rtol=0)
    assert torch.equal(found[~right], x[~right])


def test_more_strength_goes_farther(digits):
    x, y = torch.from_numpy(digits.split.images), torch.from_numpy(digits.split.labels)
    near, far = (
        sizes(WRM(strength=a)(digits.robust, x, y, THREAT, torch.Generator()) - x, "l2").mean() for a in (0.3, 1.3)
    )
    assert far > 1.5 * near


@pytest.mark.parametrize("settings", [{"steps": -1}, {"strength": 0.0}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(OptionError, match="wrm needs"):
        WRM(**settings)
