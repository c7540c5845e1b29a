from __future__ import annotations

import pytest
import torch
from torch import nn

from rctk.attacks import ATTACKS
from rctk.attacks.eot import look_often
from rctk.attacks.gradients import look
from rctk.attacks.losses import cross_entropy
from rctk.evaluation.counted_model import CountedModel
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError


def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def batch(digits):
    return torch.from_numpy(digits.split.images), torch.from_numpy(digits.split.labels)


class Noisy(nn.Module):
    """Adds noise of its own generator before it answers."""

    def __init__(self, model, size, seed=0):
        super().__init__()
        self.model, self.size = model, size
        self.source = torch.Generator().manual_seed(seed)

    def forward(self, x):
        return self.model(x + self.size * torch.randn(x.shape, generator=self.source))


class Alternating(nn.Module):
    """Answers class 0, 0, 1, 0, 0, 1, ... with margins 3, 3 and -1 and slopes 1, 1 and 4."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        margin, slope = ((3.0, 1.0), (3.0, 1.0), (-1.0, 4.0))[(self.calls - 1) % 3]
        value = x.flatten(1).sum(1)
        first = margin + slope * (value - value.detach())
        return torch.stack([first, 0 * first], dim=1)


def difference(logits, y, target):
    return logits[:, 1] - logits[:, 0]


def test_losses_margins_and_gradients_are_means_over_the_draws():
    x, y = torch.full((2, 1, 2, 2), 0.5), torch.zeros(2, dtype=torch.int64)
    seen = look_often(Alternating(), x, y, y, difference, draws=3)
    torch.testing.assert_close(seen.margin, torch.full((2,), 5 / 3))
    torch.testing.assert_close(seen.loss, torch.full((2,), -5 / 3))
    torch.testing.assert_close(seen.gradient, torch.full_like(x, -2.0))
    assert not seen.broken.any()  # one draw of three is no majority


def test_an_image_is_broken_where_most_draws_misclassify_it():
    x, y = torch.full((2, 1, 2, 2), 0.5), torch.ones(2, dtype=torch.int64)
    assert look_often(Alternating(), x, y, y, difference, draws=3).broken.all()


def test_one_draw_is_a_plain_look(digits, batch):
    x, y = batch
    one, plain = (call(digits.plain, x, y, y, cross_entropy) for call in (lambda *a: look_often(*a, draws=1), look))
    assert all(torch.equal(a, b) for a, b in zip(one, plain, strict=True))


@pytest.mark.parametrize("name", ["pgd", "apgd-ce", "apgd-dlr", "apgd-t"])
def test_a_step_costs_as_many_passes_as_draws(digits, batch, name):
    x, y = batch[0][:5], batch[1][:5]
    count = {}
    for eot in (1, 4):
        model = CountedModel(digits.robust)
        text = f"{name}:steps=3,stop_at_success=false,eot={eot}" + (",targets=1" if name == "apgd-t" else "")
        attack = ATTACKS.build(text)
        attack(model, x, y, ThreatModel(eps=1e-4), generator())
        count[eot] = model.forward_images - (5 if name == "apgd-t" else 0), model.backward_images
        assert model.forward_images + model.backward_images <= 5 * attack.passes
    assert count[4] == (4 * count[1][0], 4 * count[1][1])


def test_averaging_breaks_images_of_a_noisy_model_that_one_draw_misses(digits, batch):
    x, y = batch

    def left(eot):
        attack = ATTACKS.build(f"pgd:steps=20,eot={eot}")
        found = attack(Noisy(digits.robust, 0.25), x, y, ThreatModel(eps=0.1), generator())
        judge = Noisy(digits.robust, 0.25, seed=1)
        with torch.no_grad():
            votes = torch.stack([judge(found).argmax(1) == y for _ in range(50)]).float().mean(0)
        return float(votes.sum())

    assert left(20) < left(1) - 3


def test_a_random_model_has_no_cycles_to_stop_at(batch):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    x = batch[0][:5]
    with torch.no_grad():
        y = net(x).argmax(1)
    model = CountedModel(net)
    ATTACKS.build("pgd:steps=12,step_size=2,eot=2,stop_at_success=false")(
        model, x, y, ThreatModel(eps=1e-4), generator()
    )
    assert model.forward_images == 5 * 13 * 2


def test_no_draws_are_refused():
    for name in ("pgd", "apgd-ce", "apgd-t"):
        with pytest.raises(OptionError, match="eot of at least 1"):
            ATTACKS.build(f"{name}:eot=0")
