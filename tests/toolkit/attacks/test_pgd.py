from __future__ import annotations

import pytest
import torch
from torch import nn

from rctk.attacks import ATTACKS
from rctk.attacks.ball import Ball
from rctk.attacks.pgd import PGD
from rctk.evaluation.counted_model import CountedModel
from rctk.threat import ThreatModel
from rctk_kernels.errors import AttackError, OptionError

EPS = ThreatModel(eps=0.1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def wrong(model, x, y):
    with torch.no_grad():
        return model(x).argmax(1) != y


class Band(nn.Module):
    """Class 1 only for images whose mean lies within 0.01 of 0.55."""

    def forward(self, x):
        distance = (x.mean(dim=(1, 2, 3)) - 0.55).abs()
        return torch.stack([distance - 0.01, torch.zeros_like(distance)], dim=1)


class Two(nn.Module):
    """Two classes, ``w . x`` against 0, so that the best attack is known."""

    def __init__(self, w):
        super().__init__()
        self.w = w

    def forward(self, x):
        score = (x * self.w).sum(dim=(1, 2, 3))
        return torch.stack([score, torch.zeros_like(score)], dim=1)


W = torch.tensor([[[[3.0, -4.0]]]])
GREY = torch.full((1, 1, 1, 2), 0.5)


def shifted(score):
    """An image whose score is ``score``."""
    return GREY + (score + 0.5) * W / 25


@pytest.mark.parametrize(("norm", "reach"), [("linf", 0.7), ("l2", 0.5)])
def test_pgd_breaks_a_linear_model_up_to_the_very_radius(norm, reach):
    # w = (3, -4): a budget of 0.1 moves the score by 0.1 * 7 in linf and by 0.1 * 5 in l2
    x = torch.cat([shifted(reach - 0.01), shifted(reach + 0.01)])
    y = torch.zeros(2, dtype=torch.int64)
    out = PGD(stop_at_success=False)(Two(W), x, y, ThreatModel(norm=norm, eps=0.1), generator())
    assert wrong(Two(W), out, y).tolist() == [True, False]
    best = x[1:] - 0.1 * (W.sign() if norm == "linf" else W / 5)
    torch.testing.assert_close(out[1:], best, atol=0.01, rtol=0)


def test_an_iterate_that_was_broken_once_is_not_lost():
    x, y = torch.full((64, 1, 2, 2), 0.5), torch.zeros(64, dtype=torch.int64)
    x += 0.001 * torch.arange(64).view(-1, 1, 1, 1) / 64  # different images, different starts
    attack = PGD(steps=15, step_size=0.5)  # steps of 0.05 jump over the band of 0.02 and back
    assert wrong(Band(), attack(Band(), x, y, EPS, generator()), y).float().mean() > 0.3
    last = ATTACKS.build("torchattacks-pgd:steps=15,step_size=0.5")(Band(), x, y, EPS, generator())
    assert wrong(Band(), last, y).float().mean() < 0.3


def test_broken_images_leave_the_batch_at_once(digits):
    x, y = torch.from_numpy(digits.split.images), torch.from_numpy(digits.split.labels)
    model, threat = CountedModel(digits.plain), ThreatModel(eps=0.3)
    out = PGD(steps=20)(model, x, y, threat, generator())
    assert wrong(digits.plain, out, y).all()
    assert model.forward_images < 20 * len(x) / 2
    assert model.backward_images < model.forward_images
    whole = CountedModel(digits.plain)
    PGD(steps=20, stop_at_success=False, stop_cycles=False)(whole, x, y, threat, generator())
    assert (whole.forward_images, whole.backward_images) == (21 * len(x), 20 * len(x))


def test_going_on_after_success_ends_with_a_smaller_margin(digits):
    x, y = torch.from_numpy(digits.split.images), torch.from_numpy(digits.split.labels)

    def margins(attack):
        with torch.no_grad():
            logits = digits.plain(attack(digits.plain, x, y, EPS, generator()))
        true = logits.gather(1, y[:, None])[:, 0]
        return true - logits.scatter(1, y[:, None], -torch.inf).amax(1)

    early, late = margins(PGD()), margins(PGD(stop_at_success=False))
    assert (late <= early + 1e-5).all()
    assert (late < early - 0.5).any()


@pytest.mark.parametrize("step_size", [0.25, 0.1])
def test_stopping_at_a_cycle_saves_passes_and_changes_nothing(digits, step_size):
    x, y = torch.from_numpy(digits.split.images), torch.from_numpy(digits.split.labels)
    passes, broken = [], []
    for stop in (True, False):
        model = CountedModel(digits.robust)
        attack = PGD(steps=100, step_size=step_size, stop_cycles=stop)
        broken.append(wrong(digits.robust, attack(model, x, y, EPS, generator()), y))
        passes.append(model.forward_images)
    assert passes[0] < 0.8 * passes[1]
    assert torch.equal(*broken)


def test_an_image_with_zero_gradient_costs_two_steps():
    x, y = torch.rand(3, 1, 2, 2, generator=generator()), torch.zeros(3, dtype=torch.int64)

    class Flat(nn.Module):
        def forward(self, images):
            return images.mean(dim=(1, 2, 3))[:, None] * torch.tensor([[0.0, 0.0]]) + torch.tensor([[1.0, 0.0]])

    model = CountedModel(Flat())
    PGD(steps=50)(model, x, y, EPS, generator())
    assert model.forward_images == 2 * 3
    assert model.zero_gradients == model.backward_images == 2 * 3


def test_restarts_see_only_what_is_left_and_never_do_worse(digits):
    x, y = torch.from_numpy(digits.split.images), torch.from_numpy(digits.split.labels)
    once, often = (PGD(steps=1, step_size=0.5, restarts=n)(digits.robust, x, y, EPS, generator()) for n in (1, 8))
    first, later = wrong(digits.robust, once, y), wrong(digits.robust, often, y)
    assert (later | ~first).all()
    assert later.sum() > first.sum()
    assert torch.equal(once[first], often[first])


@pytest.mark.parametrize("loss", ["margin", "dlr"])
@pytest.mark.parametrize(("scale", "shift"), [(0.01, 0), (100, 0), (1, -50)])
def test_scale_free_losses_do_not_mind_scale_and_shift_of_the_logits(digits, loss, scale, shift):
    class Rescaled(nn.Module):
        def forward(self, images):
            return scale * digits.robust(images) + shift

    x, y = torch.from_numpy(digits.split.images), torch.from_numpy(digits.split.labels)
    attack = PGD(steps=20, loss=loss)
    plain = wrong(digits.robust, attack(digits.robust, x, y, EPS, generator()), y)
    rescaled = wrong(digits.robust, attack(Rescaled(), x, y, EPS, generator()), y)
    assert abs(int(plain.sum()) - int(rescaled.sum())) <= 1  # float32 rounds a shifted logit


def test_the_start_is_uniform_in_the_ball():
    x = torch.rand(400, 1, 4, 4, generator=generator()) * 0.2 + 0.4
    linf = Ball.around(x, EPS).start(1, stream=0) - x
    assert 0.09 < linf.abs().max() <= 0.1 + 1e-6
    assert abs(float(linf.abs().mean()) - 0.05) < 0.002  # mean of |uniform(-0.1, 0.1)|
    radius = (Ball.around(x, ThreatModel(norm="l2", eps=0.1)).start(1, stream=0) - x).flatten(1).norm(dim=1)
    assert radius.max() <= 0.1 + 1e-6
    assert abs(float(radius.mean()) - 0.05) < 0.005  # the radius is uniform, not the volume
    surface = (Ball.around(x, ThreatModel(norm="l2", eps=0.1)).start(1, stream=0, surface=True) - x).flatten(1)
    torch.testing.assert_close(surface.norm(dim=1), torch.full((400,), 0.1))


def test_a_start_belongs_to_its_image_and_not_to_its_batch():
    x = torch.rand(6, 1, 4, 4, generator=generator())
    whole = Ball.around(x, EPS).start(1, stream=0)
    torch.testing.assert_close(Ball.around(x[2:4], EPS).start(1, stream=0), whole[2:4], atol=0, rtol=0)
    assert not torch.equal(Ball.around(x, EPS).start(1, stream=1), whole)


def test_one_logit_is_no_classifier():
    with pytest.raises(AttackError, match=r"two or more classes, got \(2, 1\)"):
        PGD()(
            nn.Sequential(nn.Flatten(), nn.Linear(4, 1)),
            torch.rand(2, 1, 2, 2),
            torch.zeros(2).long(),
            EPS,
            generator(),
        )


@pytest.mark.parametrize(
    "text", ["pgd:steps=0", "pgd:restarts=0", "pgd:step_size=0", "pgd:step_size=-1", "pgd:loss=l1"]
)
def test_settings_that_make_no_sense_are_refused(text):
    with pytest.raises(OptionError):
        ATTACKS.build(text)
