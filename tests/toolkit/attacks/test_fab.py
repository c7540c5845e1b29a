from __future__ import annotations

import copy

import pytest
import torch
from pyautoattack.fab_pt import FABAttack_PT
from torch import nn

from rctk.attacks.closest import sizes
from rctk.attacks.fab import FAB
from rctk.attacks.fab_t import FABTargeted
from rctk.evaluation.counted_model import CountedModel
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError

THREATS = {
    "linf": ThreatModel(eps=0.15),
    "l2": ThreatModel(norm="l2", eps=0.8),
    "l1": ThreatModel(norm="l1", eps=3),
}
NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch(digits):
    return torch.from_numpy(digits.split.images[:40]), torch.from_numpy(digits.split.labels[:40])


def official(model, batch, threat, *, steps, targets):
    """Return the closest distance over the targets of the official code, or of its untargeted attack."""
    x, y = batch
    model = copy.deepcopy(model)  # their backward passes leave gradients in its parameters
    attack = FABAttack_PT(model, norm=NORMS[threat.norm], n_iter=steps, eps=threat.eps, device="cpu")
    best = torch.full((len(x),), torch.inf)
    for number in range(max(targets, 1)):
        attack.target_class = number + 2
        with torch.no_grad():
            found = attack.attack_single_run(x, y, is_targeted=targets > 0)
            distance = sizes(found - x, threat.norm)
            distance[model(found).argmax(1) == y] = torch.inf
        best = torch.minimum(best, distance)
    return best


@pytest.mark.parametrize("norm", THREATS)
@pytest.mark.parametrize("targets", [0, 3], ids=["untargeted", "targeted"])
def test_distances_are_those_of_the_official_code_image_by_image(digits, batch, norm, targets):
    x, y = batch
    method = (
        FABTargeted(steps=30, targets=targets, stop_in_budget=False) if targets else FAB(steps=30, stop_in_budget=False)
    )
    found = method(digits.robust, x, y, THREATS[norm], generator())
    ours, theirs = sizes(found - x, norm), official(digits.robust, batch, THREATS[norm], steps=30, targets=targets)
    assert ((ours - theirs).abs() < 1e-4).float().mean() >= 0.9  # sums in another order may part two runs
    assert ours.median() <= theirs.median() + 1e-4


@pytest.mark.parametrize("method", [FAB, FABTargeted])
def test_leaving_at_the_budget_changes_only_what_it_costs(digits, batch, method):
    x, y = batch
    inside, passes = [], []
    for stop in (True, False):
        model = CountedModel(digits.robust)
        found = method(steps=20, stop_in_budget=stop)(model, x, y, THREATS["linf"], generator())
        inside.append(sizes(found - x, "linf") <= 0.15)
        passes.append(model.forward_images)
    assert torch.equal(*inside)
    assert inside[0].any()
    assert passes[0] < passes[1]


@pytest.mark.parametrize("method", [FAB, FABTargeted])
def test_what_comes_back_is_misclassified_or_the_original(digits, batch, method):
    x, y = batch
    found = method(steps=10)(digits.robust, x, y, ThreatModel(eps=0.05), generator())
    with torch.no_grad():
        wrong = digits.robust(found).argmax(1) != y
    moved = (found != x).flatten(1).any(dim=1)
    assert (wrong | ~moved).all()
    assert moved.sum() > 20


def test_a_linear_boundary_is_met_at_its_closed_form_distance():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    net[1].weight.data = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 1.0, 3.0]])
    x, y = torch.full((1, 1, 2, 2), 0.5) + torch.tensor([0.1, 0.1, 0, 0]).view(1, 1, 2, 2), torch.tensor([1])
    w, gap = torch.tensor([1.0, 2, -1, -3]), 2.0 - 1.8
    for norm, length in (("linf", w.abs().sum()), ("l2", w.norm()), ("l1", w.abs().max())):
        threat = ThreatModel(norm=norm, eps=0.5)
        found = FABTargeted(steps=30, stop_in_budget=False)(net, x, y, threat, generator())
        assert sizes(found - x, norm).item() == pytest.approx(gap / length.item(), rel=0.02)


def test_restarts_find_nothing_farther_away(digits, batch):
    x, y = batch
    one, three = (
        FABTargeted(steps=30, targets=1, restarts=restarts, stop_in_budget=False)(
            digits.robust, x, y, THREATS["linf"], generator()
        )
        for restarts in (1, 3)
    )
    distance = [sizes(found - x, "linf") for found in (one, three)]
    assert (distance[1] <= distance[0]).all()
    assert (distance[1] < distance[0]).any()


def test_an_image_that_is_misclassified_as_it_is_comes_back_untouched(digits, batch):
    x, _ = batch
    model = CountedModel(digits.robust)
    with torch.no_grad():
        wrong = (model(x).argmax(1) + 1) % 10
    assert torch.equal(FABTargeted()(model, x, wrong, THREATS["linf"], generator()), x)
    assert model.backward_images == 0


def test_zero_gradients_leave_the_original_and_no_nan(digits, batch):
    x, y = batch

    class Rounds(nn.Module):
        def forward(self, images):
            return digits.plain(images.round())

    for method in (FAB(steps=3), FABTargeted(steps=3)):
        assert torch.isfinite(method(Rounds(), x, y, THREATS["linf"], generator())).all()


@pytest.mark.parametrize("make", [lambda: FAB(steps=0), lambda: FABTargeted(targets=0), lambda: FAB(classes=0)])
def test_settings_that_make_no_sense_are_refused(make):
    with pytest.raises(OptionError, match="at least 1"):
        make()


def test_the_parameters_of_the_model_get_no_gradients(digits, batch):
    model = copy.deepcopy(digits.robust)
    FABTargeted(steps=2)(model, *batch, THREATS["l2"], generator())
    assert all(parameter.grad is None for parameter in model.parameters())
