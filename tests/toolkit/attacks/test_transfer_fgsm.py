from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rctk.attacks import ATTACKS
from rctk.attacks.boosters import diverse, smooth
from rctk.attacks.transfer_fgsm import TransferFGSM
from rctk.evaluation.judge import evaluate
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError

EPS = ThreatModel(eps=0.1)
EVERYTHING = "mi+ni+di+ti+si+vmi"


class Recorded(nn.Module):
    """A model that notes the range of what it is shown."""

    def __init__(self, model):
        super().__init__()
        self.model, self.low, self.high, self.seen = model, np.inf, -np.inf, 0

    def forward(self, x):
        self.low, self.high = min(self.low, float(x.detach().min())), max(self.high, float(x.detach().max()))
        self.seen += len(x)
        return self.model(x)


class Vanishing(nn.Module):
    """A model whose gradient is exactly zero at its first call with one, and right afterwards."""

    def __init__(self, model):
        super().__init__()
        self.model, self.calls = model, 0

    def forward(self, x):
        self.calls += torch.is_grad_enabled() and x.requires_grad
        return self.model(x.detach() + 0 * x if self.calls == 1 else x)


def tensors(split, count=None):
    return torch.from_numpy(split.images[:count]), torch.from_numpy(split.labels[:count])


def run(attack, model, split, threat=EPS, seed=0):
    return attack(model, *tensors(split), threat, torch.Generator().manual_seed(seed))


def test_without_boosters_it_is_the_basic_iterative_method(digits):
    x, y = tensors(digits.split)
    adv = x.clone()
    for _ in range(10):
        leaf = adv.requires_grad_()
        (slope,) = torch.autograd.grad(nn.functional.cross_entropy(digits.robust(leaf), y, reduction="sum"), leaf)
        adv = torch.clamp(adv.detach() + 0.01 * slope.sign(), (x - 0.1).clamp(min=0), (x + 0.1).clamp(max=1))
    ours = run(TransferFGSM(boosters="none"), digits.robust, digits.split)
    with torch.no_grad():
        last = digits.robust(adv).argmax(1) != y
        found = digits.robust(ours).argmax(1) != y
    assert (found | ~last).all()  # ours never loses an iterate that broke
    same = (ours - adv).abs().amax(dim=(1, 2, 3)) < 1e-6
    assert same.float().mean() > 0.8  # elsewhere an earlier iterate had the higher loss


def test_momentum_adds_unit_gradients_by_hand():
    # logits (a.x, 0): the gradient of the cross-entropy of class 0 is -p1 * a, whose signs never change
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    model[1].weight.data = torch.tensor([[1.0, -2.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]])
    model[1].bias.data.zero_()
    x = torch.full((1, 1, 2, 2), 0.5)
    adv = TransferFGSM(boosters="mi", steps=5)(model, x, torch.tensor([0]), EPS, torch.Generator().manual_seed(0))
    torch.testing.assert_close(adv - x, torch.tensor([[[[-0.1, 0.1], [-0.1, 0.0]]]]))


def test_diversity_shrinks_to_the_size_and_place_that_were_drawn():
    x = torch.ones(2, 3, 10, 20)
    out = diverse(x, torch.tensor([[0.4, 0.0, 0.99, 0.0], [0.5, 0.0, 0.0, 0.0]]))
    # smallest size: 9 by 18; last row of places: one down, none to the right
    assert out[0, :, 1:, :18].eq(1).all()
    assert out[0, :, 0].eq(0).all()
    assert out[0, :, :, 18:].eq(0).all()
    assert out[1].eq(1).all()  # 0.5 is not below one half: left alone


def test_diversity_keeps_a_picture_that_is_not_shrunk():
    x = torch.rand(1, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(diverse(x, torch.tensor([[0.0, 0.999, 0.5, 0.5]])), x)


def test_diversity_interpolates_linearly():
    ramp = torch.arange(20.0).expand(1, 1, 20, 20)
    out = diverse(ramp, torch.tensor([[0.0, 0.0, 0.0, 0.0]]))  # 18 pixels at the left
    expected = (torch.arange(18.0) + 0.5) * 20 / 18 - 0.5
    torch.testing.assert_close(out[0, 0, 5, :18], expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_smoothing_has_weight_one_and_keeps_channels_apart(channels):
    impulse = torch.zeros(1, channels, 32, 32)
    impulse[0, -1, 16, 16] = 1
    blurred = smooth(impulse)
    assert blurred[0, :-1].eq(0).all()
    assert float(blurred[0, -1].sum()) == pytest.approx(1, abs=1e-5)
    assert (blurred[0, -1] > 0).sum() == 7 * 7
    assert smooth(torch.ones(1, 1, 64, 64))[0, 0, 32, 32] == pytest.approx(1, abs=1e-5)


def test_a_tiny_image_is_not_blurred_away():
    gradient = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(smooth(gradient), gradient)


def test_no_look_ahead_leaves_the_range_of_images(digits):
    model = Recorded(digits.plain)
    run(TransferFGSM(boosters=EVERYTHING, neighbours=2), model, digits.split, ThreatModel(eps=0.5))
    assert model.low >= 0
    assert model.high <= 1


def test_a_gradient_that_vanishes_once_freezes_nothing(digits):
    x, y = tensors(digits.split)
    adv = TransferFGSM(boosters="mi")(Vanishing(digits.plain), x, y, EPS, torch.Generator().manual_seed(0))
    assert torch.isfinite(adv).all()
    assert (adv != x).flatten(1).any(dim=1).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("boosters", ["none", "mi", "mi+ni", "di", "ti", "si", "mi+vmi", EVERYTHING])
def test_every_booster_breaks_more_than_noise_and_costs_what_it_says(digits, predict_with, boosters, norm):
    threat = ThreatModel(norm=norm, eps=0.1 if norm == "linf" else 0.8)
    attack = TransferFGSM(boosters=boosters, steps=5, neighbours=2)
    result = evaluate(predict_with(digits.plain), digits.split, attack, threat, seed=0, model=digits.plain)
    noise = evaluate(predict_with(digits.plain), digits.split, ATTACKS.build("noise"), threat, seed=0)
    assert result.robust.sum() < noise.robust.sum() - 5
    assert result.forward_passes + result.backward_passes == result.clean.sum() * attack.passes


def test_an_image_is_attacked_the_same_in_any_batch(digits):
    attack = TransferFGSM(boosters=EVERYTHING, neighbours=2, steps=4)
    whole = run(attack, digits.plain, digits.split)
    part = run(attack, digits.plain, digits.split.take(np.arange(37, 60)))
    torch.testing.assert_close(whole[37:60], part, atol=0.02, rtol=0)
    assert ((whole[37:60] - part).abs() < 1e-6).float().mean() > 0.99


def test_stopping_at_success_saves_passes_and_loses_no_image(digits):
    stops, goes_on = Recorded(digits.plain), Recorded(digits.plain)
    broken = []
    for model, stop in ((stops, True), (goes_on, False)):
        adv = run(TransferFGSM(boosters="mi+di", stop_at_success=stop), model, digits.split)
        with torch.no_grad():
            broken.append((digits.plain(adv).argmax(1) != tensors(digits.split)[1]).numpy())
    assert stops.seen < 0.9 * goes_on.seen
    np.testing.assert_array_equal(*broken)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("transfer:boosters=mi+dim", "boosters are mi, ni, di, ti, si, vmi joined by"),
        ("transfer:boosters=ni", "write boosters=mi"),
        ("transfer:steps=0", "steps and neighbours of at least 1"),
        ("transfer:step_size=0", "positive share"),
        ("transfer:decay=-1", "must not be negative"),
    ],
)
def test_wrong_settings_are_refused(text, message):
    with pytest.raises(OptionError, match=message):
        ATTACKS.build(text)
