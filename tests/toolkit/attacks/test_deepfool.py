from __future__ import annotations

import copy

import pytest
import torch
import torchattacks
from torch import nn

from rctk.attacks.closest import sizes
from rctk.attacks.deepfool import DeepFool
from rctk.evaluation.counted_model import CountedModel
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError

WHOLE = {"linf": ThreatModel(eps=1.0), "l2": ThreatModel(norm="l2", eps=8.0)}


def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def batch(digits):
    return torch.from_numpy(digits.split.images), torch.from_numpy(digits.split.labels)


def wrong(model, x, y):
    with torch.no_grad():
        return model(x).argmax(1) != y


@pytest.mark.parametrize("norm", WHOLE)
def test_on_a_linear_classifier_the_way_is_the_closed_form_distance_and_the_overshoot(norm):
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 3, bias=False))
    net[1].weight.data = torch.tensor([[1.0, 0, 2, 0, 1, -1], [0, 1, 0, -1, 2, 0], [2, 1, 0, 1, 0, 1]])
    x = torch.rand(50, 1, 2, 3, generator=generator()) * 0.2 + 0.4
    with torch.no_grad():
        z = net(x)
    y, w = z.argmax(1), net[1].weight.detach()
    gap = z.gather(1, y[:, None]) - z
    between = w[y][:, None] - w[None]
    length = between.abs().sum(2) if norm == "linf" else between.norm(dim=2)
    nearest = ((gap + 1e-4) / length).scatter(1, y[:, None], torch.inf).amin(1)
    small = nearest < 0.3  # no pixel meets 0 or 1 on the way
    found = DeepFool()(net, x, y, WHOLE[norm], generator())
    assert small.sum() > 20
    torch.testing.assert_close(sizes(found - x, norm)[small], 1.02 * nearest[small], atol=1e-5, rtol=1e-4)
    assert wrong(net, found, y)[small].all()


def test_theirs_stops_in_front_of_the_boundary_and_ours_behind_it(digits, batch):
    x, y = batch
    raw = torchattacks.DeepFool(digits.plain, steps=50, overshoot=0.02)(x[:30], y[:30])
    ours = DeepFool()(digits.plain, x[:30], y[:30], WHOLE["l2"], generator())
    assert wrong(digits.plain, raw, y[:30]).float().mean() < 0.9
    assert wrong(digits.plain, ours, y[:30]).all()
    digits.plain.zero_grad()
    for parameter in digits.plain.parameters():
        parameter.grad = None  # their backward passes left gradients there


def test_zero_gradients_are_nan_in_theirs_and_the_original_in_ours(digits, batch):
    net = copy.deepcopy(digits.plain)  # theirs leaves gradients on its parameters

    class Rounds(nn.Module):
        def forward(self, images):
            return net(images + (images.round() - images).detach() - (images - images.detach()))

    x, y = batch[0][:10], batch[1][:10]
    right = ~wrong(Rounds(), x, y)
    raw = torchattacks.DeepFool(Rounds(), steps=3)(x, y)
    assert raw[right].isnan().any()
    model = CountedModel(Rounds())
    ours = DeepFool()(model, x, y, WHOLE["l2"], generator())
    assert torch.equal(ours, x)
    assert model.forward_images <= 3 * len(x)  # it gives up at the first step
    assert model.zero_gradients == model.backward_images > 0


def test_few_classes_are_enough(digits, batch):
    x, y = batch
    model = CountedModel(digits.plain)
    found = DeepFool(classes=3)(model, x, y, WHOLE["l2"], generator())
    assert wrong(digits.plain, found, y).float().mean() > 0.95
    assert model.backward_images <= 2 * model.forward_images


def test_an_image_that_is_misclassified_as_it_is_comes_back_untouched(digits, batch):
    x, _ = batch
    with torch.no_grad():
        other = (digits.plain(x).argmax(1) + 1) % 10
    assert torch.equal(DeepFool()(digits.plain, x, other, WHOLE["linf"], generator()), x)


@pytest.mark.parametrize("settings", [{"steps": 0}, {"classes": 1}, {"overshoot": -0.1}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(OptionError, match="deepfool needs"):
        DeepFool(**settings)
