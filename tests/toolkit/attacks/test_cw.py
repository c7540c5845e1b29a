"""Both attacks of Carlini and Wagner."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
import torchattacks
from torch import nn

from rctk.attacks.closest import sizes
from rctk.attacks.cw_l2 import CarliniWagnerL2
from rctk.attacks.cw_linf import CarliniWagnerLinf
from rctk.attacks.fmn import FMN
from rctk.attacks.tanh_space import Descent, from_tanh, shortfall, tanh_gradient, to_tanh
from rctk.evaluation.counted_model import CountedModel
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError

L2, LINF = ThreatModel(norm="l2", eps=0.8), ThreatModel(eps=0.15)
FAST = {"steps": 200, "searches": 5, "first_weight": 0.1, "stop_in_budget": False}


def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def batch(digits):
    return torch.from_numpy(digits.split.images[:20]), torch.from_numpy(digits.split.labels[:20])


def wrong(model, x, y):
    with torch.no_grad():
        return model(x).argmax(1) != y


class Shifted(nn.Module):
    """The same classifier with logits far below zero."""

    def __init__(self, model, by, scale=1.0):
        super().__init__()
        self.model, self.by, self.scale = model, by, scale

    def forward(self, x):
        return self.scale * self.model(x) + self.by


def two_classes():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    net[1].weight.data = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 1.0, 3.0]])
    return net, torch.tensor([0.6, 0.6, 0.5, 0.5]).view(1, 1, 2, 2), torch.tensor([1])


def test_on_a_linear_classifier_the_distances_are_the_closed_form_ones():
    net, x, y = two_classes()  # the gap of 0.2 over weights of l2 length sqrt 15 and l1 length 7
    found = CarliniWagnerL2(first_weight=1, searches=12, stop_in_budget=False)(net, x, y, L2, generator())
    assert sizes(found - x, "l2").item() == pytest.approx(0.2 / 15**0.5, rel=0.02)
    found = CarliniWagnerLinf(stop_in_budget=False)(net, x, y, LINF, generator())
    assert sizes(found - x, "linf").item() == pytest.approx(0.2 / 7, rel=0.12)


def test_in_l2_it_is_as_close_as_fmn(digits, batch):
    x, y = batch
    ours = CarliniWagnerL2(**FAST | {"learning_rate": 0.05})(digits.robust, x, y, L2, generator())
    other = FMN(stop_in_budget=False)(digits.robust, x, y, L2, generator())
    assert wrong(digits.robust, ours, y).all()
    assert sizes(ours - x, "l2").median() <= 1.1 * sizes(other - x, "l2").median()


def test_in_linf_it_is_as_close_as_fmn(digits, batch):
    x, y = batch
    ours = CarliniWagnerLinf(stop_in_budget=False)(digits.robust, x, y, LINF, generator())
    other = FMN(stop_in_budget=False)(digits.robust, x, y, LINF, generator())
    assert wrong(digits.robust, ours, y).all()
    assert sizes(ours - x, "linf").median() <= 1.1 * sizes(other - x, "linf").median()


def test_saturated_pixels_never_move_in_theirs_and_move_in_ours(digits, batch):
    x, y = batch[0].round(), batch[1]
    right = ~wrong(digits.plain, x, y)
    raw = torchattacks.CW(copy.deepcopy(digits.plain), c=10, steps=50, lr=0.05)(x, y)
    assert torch.equal(raw, x)
    for attack, threat in (
        (CarliniWagnerL2(**FAST | {"learning_rate": 0.1, "first_weight": 10.0}), L2),
        (CarliniWagnerLinf(), LINF),
    ):
        found = attack(digits.plain, x, y, threat, generator())
        assert wrong(digits.plain, found, y).float().mean() >= 0.95
        assert (found != x).flatten(1).any(1)[right].float().mean() >= 0.9


@pytest.mark.parametrize(("by", "scale"), [(-50.0, 1.0), (0.0, 100.0)])
def test_a_shift_of_the_logits_blinds_theirs_and_not_ours(digits, batch, by, scale):
    x, y = batch
    same = Shifted(digits.plain, by, scale)
    if by:
        before, after = (
            wrong(digits.plain, torchattacks.CW(copy.deepcopy(model), c=10, steps=80, lr=0.05)(x, y), y).sum()
            for model in (digits.plain, same)
        )
        assert before > 0.8 * len(x)
        assert after < 0.3 * len(x)
    for attack, threat in (
        (CarliniWagnerL2(**FAST | {"learning_rate": 0.05, "first_weight": 1e-2, "searches": 6}), L2),
        (CarliniWagnerLinf(steps=300, stop_in_budget=False), LINF),
    ):
        plain, shifted = (attack(model, x, y, threat, generator()) for model in (digits.plain, same))
        assert wrong(digits.plain, shifted, y).all()
        ratio = sizes(shifted - x, threat.norm).median() / sizes(plain - x, threat.norm).median()
        assert 0.85 < ratio < 1.15


def test_a_fixed_weight_misses_images_that_the_search_breaks(digits, batch):
    x, y = batch
    raw = torchattacks.CW(copy.deepcopy(digits.robust))(x, y)  # its defaults: weight 1, 50 steps
    ours = CarliniWagnerL2(**FAST | {"learning_rate": 0.05})(digits.robust, x, y, L2, generator())
    assert wrong(digits.robust, raw, y).float().mean() < 0.6
    assert wrong(digits.robust, ours, y).all()


def test_parameters_collect_gradients_in_theirs_and_none_in_ours(digits, batch):
    x, y = batch
    model = copy.deepcopy(digits.plain)
    torchattacks.CW(model, steps=2)(x, y)
    assert all(parameter.grad is not None for parameter in model.parameters())
    model = copy.deepcopy(digits.plain)
    CarliniWagnerL2(steps=2, searches=1)(model, x, y, L2, generator())
    CarliniWagnerLinf(steps=2)(model, x, y, LINF, generator())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_with_confidence_the_wrong_class_wins_by_it(digits, batch):
    x, y = batch
    for attack, threat in (
        (CarliniWagnerL2(**FAST | {"learning_rate": 0.05, "confidence": 2.0}), L2),
        (CarliniWagnerLinf(confidence=2.0, stop_in_budget=False), LINF),
    ):
        found = attack(digits.robust, x, y, threat, generator())
        moved = (found != x).flatten(1).any(1)
        with torch.no_grad():
            z = digits.robust(found)
        gap = z.gather(1, y[:, None])[:, 0] - z.scatter(1, y[:, None], -torch.inf).amax(1)
        assert moved.float().mean() > 0.8
        assert (gap[moved] <= -2 + 1e-3).all()


def test_in_the_budget_an_image_leaves_early(digits, batch):
    x, y = batch
    for make, threat in (
        (lambda **k: CarliniWagnerL2(**FAST | k | {"searches": 3}), L2),
        (partial(CarliniWagnerLinf, steps=300), LINF),
    ):
        passes, inside = [], []
        for stop in (True, False):
            model = CountedModel(digits.plain)
            found = make(stop_in_budget=stop)(model, x, y, threat, generator())
            passes.append(model.forward_images)
            inside.append(sizes(found - x, threat.norm) <= threat.eps)
        assert torch.equal(*inside)
        assert passes[0] < passes[1]


def test_a_budget_in_another_norm_does_not_end_the_search(digits, batch):
    x, y = batch
    found = CarliniWagnerLinf(steps=100)(digits.plain, x, y, ThreatModel(norm="l2", eps=8.0), generator())
    same = CarliniWagnerLinf(steps=100, stop_in_budget=False)(digits.plain, x, y, LINF, generator())
    assert torch.equal(found, same)


def test_tanh_space_holds_saturated_pixels_and_its_gradient_is_the_derivative():
    x = torch.tensor([[0.0, 0.25, 1.0]])
    w = to_tanh(x)
    assert torch.isfinite(w).all()
    torch.testing.assert_close(from_tanh(w), x, atol=1e-6, rtol=0)
    leaf = w.double().requires_grad_()
    (slope,) = torch.autograd.grad((from_tanh(leaf) * torch.tensor([1.0, 2.0, 3.0])).sum(), leaf)
    torch.testing.assert_close(tanh_gradient(w.double(), torch.tensor([[1.0, 2, 3]]).double()), slope)


def test_a_tie_is_no_success_and_keeps_its_gradient():
    net, x, y = two_classes()
    tie = torch.full_like(x, 0.5)
    tie[0, 0, 0, 0], tie[0, 0, 1, 1] = 1.0, 0.5  # 1 + 1 = 0.5 + 1.5
    seen = shortfall(net, tie, torch.tensor([0]), 0.0)  # argmax takes the first of two equal logits: class 0, right
    assert not seen.reached.any()
    assert seen.value.tolist() == [0]
    assert (seen.gradient != 0).any()
    assert shortfall(net, tie, y, 0.0).reached.all()  # with the other label it is misclassified


def test_adam_steps_have_the_length_of_its_rate_and_counts_of_their_own():
    descent = Descent(torch.zeros(2, 1), 0.1)
    descent.step(torch.tensor([[4.0], [-0.5]]))
    torch.testing.assert_close(descent.point, torch.tensor([[-0.1], [0.1]]), atol=1e-6, rtol=0)
    descent.restart(torch.tensor([True, False]))
    descent.step(torch.tensor([[-4.0], [-0.5]]))  # the first starts again, so it goes back all the way
    torch.testing.assert_close(descent.point, torch.tensor([[0.0], [0.2]]), atol=1e-5, rtol=0)
    descent.keep(torch.tensor([False, True]))
    assert descent.point.shape == (1, 1)


@pytest.mark.parametrize("settings", [{"steps": 0}, {"learning_rate": 0}, {"confidence": -1}, {"first_weight": 0}])
@pytest.mark.parametrize("attack", [CarliniWagnerL2, CarliniWagnerLinf])
def test_settings_that_make_no_sense_are_refused(attack, settings):
    with pytest.raises(OptionError, match="cw-l"):
        attack(**settings)
