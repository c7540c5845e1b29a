from __future__ import annotations

import pytest
import torch
from torch import nn

from rctk.attacks.closest import sizes
from rctk.attacks.fab_t import FABTargeted
from rctk.attacks.fmn import FMN, cosine
from rctk.evaluation.counted_model import CountedModel
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError

THREATS = {
    "linf": ThreatModel(eps=0.15),
    "l2": ThreatModel(norm="l2", eps=0.8),
    "l1": ThreatModel(norm="l1", eps=2.5),
}


def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def batch(digits):
    return torch.from_numpy(digits.split.images), torch.from_numpy(digits.split.labels)


@pytest.mark.parametrize(("norm", "expected"), [("linf", 0.2 / 7), ("l2", 0.2 / 15**0.5), ("l1", 0.2 / 3)])
def test_on_a_linear_classifier_it_finds_the_closed_form_distance(norm, expected):
    # the logits differ by x0 + 2 x1 - x2 - 3 x3 = 1.8 - 2 = -0.2; the weights have l1 length 7, l2 length sqrt 15 and
    # largest size 3
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    net[1].weight.data = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 1.0, 3.0]])
    x, y = torch.tensor([0.6, 0.6, 0.5, 0.5]).view(1, 1, 2, 2), torch.tensor([1])
    found = FMN(steps=200, stop_in_budget=False)(net, x, y, THREATS[norm], generator())
    assert sizes(found - x, norm).item() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("norm", THREATS)
def test_it_is_about_as_close_as_fab_at_a_fifth_of_the_cost(digits, batch, norm):
    x, y = batch
    distance, passes = [], []
    for attack in (FMN(stop_in_budget=False), FABTargeted(stop_in_budget=False, steps=60, targets=6)):
        model = CountedModel(digits.robust)
        found = attack(model, x, y, THREATS[norm], generator())
        with torch.no_grad():
            assert (digits.robust(found).argmax(1) != y).all()
        distance.append(sizes(found - x, norm))
        passes.append(model.forward_images + model.backward_images)
    assert distance[0].median() <= 1.08 * distance[1].median()
    assert 5 * passes[0] < passes[1]


def test_leaving_at_the_budget_changes_only_what_it_costs(digits, batch):
    x, y = batch
    inside, passes = [], []
    for stop in (True, False):
        model = CountedModel(digits.robust)
        found = FMN(stop_in_budget=stop)(model, x, y, THREATS["linf"], generator())
        inside.append(sizes(found - x, "linf") <= 0.15)
        passes.append(model.forward_images)
    assert torch.equal(*inside)
    assert inside[0].sum() > 30
    assert passes[0] < 0.8 * passes[1]


def test_saturated_pixels_do_not_hold_the_radius_back(digits, batch):
    # most pixels of a digit are 0, so half of a step is clipped away
    x, y = batch
    found = FMN(stop_in_budget=False)(digits.plain, x, y, THREATS["l2"], generator())
    with torch.no_grad():
        assert (digits.plain(found).argmax(1) != y).all()


def test_an_image_that_is_misclassified_as_it_is_comes_back_untouched(digits, batch):
    x, _ = batch
    with torch.no_grad():
        other = (digits.plain(x).argmax(1) + 1) % 10
    model = CountedModel(digits.plain)
    assert torch.equal(FMN()(model, x, other, THREATS["l2"], generator()), x)
    assert model.forward_images == len(x)


def test_the_schedule_falls_from_one_to_zero():
    assert [round(cosine(number, 4), 3) for number in range(5)] == [1, 0.854, 0.5, 0.146, 0]


@pytest.mark.parametrize("settings", [{"steps": 0}, {"rate": 0}, {"rate": 1}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(OptionError, match="fmn needs"):
        FMN(**settings)
