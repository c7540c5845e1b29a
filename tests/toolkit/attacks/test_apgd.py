from __future__ import annotations

import numpy as np
import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch import nn

from rctk.attacks import ATTACKS
from rctk.attacks.apgd import AutoPgd, checkpoints
from rctk.attacks.apgd_ce import APGDCrossEntropy
from rctk.attacks.apgd_t import APGDTargeted, wrong_classes
from rctk.attacks.ball import Ball
from rctk.attacks.best import Best
from rctk.attacks.losses import cross_entropy, dlr, targeted_dlr
from rctk.evaluation.counted_model import CountedModel
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError

EPS = ThreatModel(eps=0.15)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch(digits):
    return torch.from_numpy(digits.split.images), torch.from_numpy(digits.split.labels)


def wrong(model, x, y):
    with torch.no_grad():
        return model(x).argmax(1) != y


class Washed(nn.Module):
    """A model of images that were brought closer to grey."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model((x - 0.45) / 0.1)


def test_checkpoints_of_a_hundred_steps():
    # the first after 22 %, each next interval 3 % shorter, down to 6 %
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]


def test_checkpoints_are_rounded_up():
    assert checkpoints(10) == [3, 5, 6, 7, 8, 9, 10, 10]


@pytest.mark.filterwarnings("ignore:there are .* points with zero gradient")
@pytest.mark.parametrize(("name", "loss"), [("ce", cross_entropy), ("dlr", dlr)])
@pytest.mark.parametrize("threat", [EPS, ThreatModel(norm="l2", eps=0.8)], ids=["linf", "l2"])
def test_a_run_is_the_official_run_from_the_same_start(digits, batch, threat, name, loss):
    """In l2 on greyer images, where no pixel reaches 0 or 1: there, ours loses less length than the official run."""
    (x, y), model = batch, digits.robust
    if threat.norm == "l2":
        x, model, threat = 0.45 + 0.1 * x, Washed(model), ThreatModel(norm="l2", eps=0.08)
    start = Ball.around(x, threat).start(3, stream=0, surface=True)
    norm = {"linf": "Linf", "l2": "L2"}[threat.norm]
    official = APGDAttack(model, n_iter=100, norm=norm, eps=threat.eps, loss=name, device="cpu")
    official.init_hyperparam(x)
    _, correct, official_loss, _ = official.attack_single_run(x, y, x_init=start)
    best = Best(x)
    AutoPgd(steps=100, loss=loss, stop=False).run(model, Ball.around(x, threat), y, y, start, best)
    assert torch.equal(best.broken, ~correct)
    with torch.no_grad():
        ours = loss(model(best.images), y, y)
    survivors = correct & (official_loss < 5)  # of a survivor both keep the iterate with the highest loss
    close = (ours - official_loss).abs()[survivors] < 1e-4
    assert survivors.sum() > 10
    assert close.float().mean() > 0.95  # in l2 the order of sums may part two runs


@pytest.mark.filterwarnings("ignore:there are .* points with zero gradient")
def test_a_targeted_run_is_the_official_run_from_the_same_start(digits, batch):
    x, y = batch
    start = Ball.around(x, EPS).start(3, stream=0, surface=True)
    official = APGDAttack_targeted(digits.robust, n_iter=100, norm="Linf", eps=EPS.eps, device="cpu")
    official.init_hyperparam(x)
    official.loss = "dlr-targeted"
    target = wrong_classes(digits.robust, x, y)[:, 0]
    official.y_target = target
    _, correct, official_loss, _ = official.attack_single_run(x, y, x_init=start)
    best = Best(x)
    AutoPgd(steps=100, loss=targeted_dlr, stop=False).run(digits.robust, Ball.around(x, EPS), y, target, start, best)
    assert torch.equal(best.broken, ~correct)
    with torch.no_grad():
        ours = targeted_dlr(digits.robust(best.images), y, target)
    torch.testing.assert_close(ours[correct], official_loss[correct], atol=1e-4, rtol=0)


def test_long_l2_steps_against_black_and_white_pixels_keep_their_length():
    """Of a linear margin the farthest point is known: along the pixels that are free to move, over the whole radius."""
    x = torch.rand(20, 1, 6, 6, generator=generator()).round()
    slope = torch.randn(36, generator=generator(1))
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    model.requires_grad_(False)
    model[1].weight.copy_(torch.stack([torch.zeros(36), slope]))
    model[1].bias.copy_(torch.tensor([1e4, 0.0]))  # nothing breaks, and only class 0 is right
    free = slope * ((x.flatten(1) < 1) & (slope > 0) | (x.flatten(1) > 0) & (slope < 0))
    out = APGDCrossEntropy(steps=4, loss="margin")(
        model, x, torch.zeros(20).long(), ThreatModel(norm="l2", eps=0.5), generator()
    )
    gain = (out - x).flatten(1) @ slope
    assert bool((gain > 0.99 * 0.5 * free.norm(dim=1)).all())


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-t"])
def test_leaving_early_changes_only_what_it_costs(digits, batch, name):
    x, y = batch
    results, passes = [], []
    for stop in ("true", "false"):
        model = CountedModel(digits.robust)
        out = ATTACKS.build(f"{name}:steps=30,stop_at_success={stop}")(model, x, y, EPS, generator())
        results.append(wrong(digits.robust, out, y))
        passes.append(model.forward_images)
    assert torch.equal(*results)
    assert passes[0] < 0.85 * passes[1]


def test_a_full_run_costs_one_forward_pass_more_than_it_has_steps(digits, batch):
    model = CountedModel(digits.robust)
    APGDCrossEntropy(steps=12, stop_at_success=False)(model, *batch, EPS, generator())
    assert (model.forward_images, model.backward_images) == (13 * 100, 12 * 100)


def test_survivors_come_back_with_the_highest_loss_found(digits, batch):
    x, y = batch
    out = APGDCrossEntropy()(digits.robust, x, y, EPS, generator())
    alive = ~wrong(digits.robust, out, y) & ~wrong(digits.robust, x, y)
    assert alive.sum() > 20
    with torch.no_grad():
        before = cross_entropy(digits.robust(x[alive]), y[alive], y)
        after = cross_entropy(digits.robust(out[alive]), y[alive], y)
        noise = Ball.around(x[alive], EPS).start(9, stream=0)
        random = cross_entropy(digits.robust(noise), y[alive], y)
    assert (after >= before).all()
    assert (after > random).float().mean() > 0.95


def test_wrong_classes_come_in_the_order_of_their_logits_without_the_true_one():
    class Table(nn.Module):
        def forward(self, x):
            return torch.tensor([[4.0, 1.0, 3.0, 2.0], [9.0, 1.0, 1.5, 0.0]])

    # image 1 is misclassified as class 0: that is then the first target
    ranked = wrong_classes(Table(), torch.zeros(2, 1, 1, 1), torch.tensor([0, 2]))
    assert ranked.tolist() == [[2, 3, 1], [0, 1, 3]]


def test_there_are_at_most_as_many_targets_as_wrong_classes():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
    net[1].weight.data = torch.tensor([[9.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])
    x, model = torch.tensor([[[[0.9, 0.1], [0.1, 0.1]]]]), CountedModel(net)
    APGDTargeted(steps=5)(model, x, torch.tensor([0]), ThreatModel(eps=0.01), generator())
    assert model.forward_images == 1 + 2 * 6  # ranking, then two targets


def test_each_target_is_tried_on_survivors_only(digits, batch):
    x, y = batch
    few, many = CountedModel(digits.robust), CountedModel(digits.robust)
    one = APGDTargeted(steps=20, targets=1)(few, x, y, EPS, generator())
    nine = APGDTargeted(steps=20, targets=9)(many, x, y, EPS, generator())
    broken = wrong(digits.robust, one, y)
    assert torch.equal(one[broken], nine[broken])
    assert (wrong(digits.robust, nine, y) | ~broken).all()
    assert many.forward_images < 9 * few.forward_images


def test_saturated_logits_blind_the_cross_entropy_but_not_the_ratio(digits, batch):
    class Loud(nn.Module):
        def forward(self, images):
            return 1000 * digits.plain(images)

    x, y = batch
    plain, loud = CountedModel(digits.plain), CountedModel(Loud())
    quiet_t = wrong(digits.plain, APGDTargeted(steps=20)(plain, x, y, EPS, generator()), y).sum()
    loud_t = wrong(digits.plain, APGDTargeted(steps=20)(loud, x, y, EPS, generator()), y).sum()
    assert abs(int(quiet_t - loud_t)) <= 1
    loud_ce = wrong(digits.plain, APGDCrossEntropy(steps=20)(loud, x, y, EPS, generator()), y).sum()
    assert loud_ce < quiet_t
    assert loud.zero_gradients > 0


@pytest.mark.parametrize("text", ["apgd-ce:steps=0", "apgd-ce:loss=x", "apgd-t:targets=0", "apgd-t:restarts=0"])
def test_settings_that_make_no_sense_are_refused(text):
    with pytest.raises(OptionError):
        ATTACKS.build(text)


def test_the_batch_does_not_matter(digits, batch):
    x, y = batch
    whole = APGDCrossEntropy(steps=20)(digits.robust, x, y, EPS, generator())
    parts = torch.cat(
        [
            APGDCrossEntropy(steps=20)(digits.robust, x[rows], y[rows], EPS, generator())
            for rows in np.array_split(np.arange(100), 7)
        ]
    )
    # the same starts and the same moves; sums of a convolution may differ in the last bit with the batch size
    assert (whole - parts).abs().flatten(1).amax(1).lt(1e-6).float().mean() > 0.9
