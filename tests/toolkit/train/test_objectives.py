import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rctk.train import OBJECTIVES, build_objective
from rctk.train.adv_mix import AdvMix
from rctk.train.fast_at import FastAt
from rctk.train.free_at import FreeAt
from rctk.train.gradalign import GradAlign, misalignment
from rctk.train.mart import Mart, boosted_cross_entropy
from rctk.train.pgd_at import PgdAt
from rctk.train.standard import Standard
from rctk.train.trades import Trades
from rctk_kernels.errors import OptionError

HARD = {"train.mart"}
"""Objectives that need one class per image."""


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3)).train()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(8, 1, 8, 8, generator=generator), torch.randint(0, 3, (8,), generator=generator)


def seeded():
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_an_objective_gives_a_loss_that_reaches_every_parameter(name, model, batch):
    before = torch.get_rng_state()
    loss = build_objective(name)(model, *batch, seeded())
    assert loss.shape == ()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), before)
    loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model[4].parameters())


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_an_objective_repeats_with_the_same_generator(name, model, batch):
    objective = build_objective(name)
    model[1].momentum = 0.0  # running statistics stay
    first, again = (objective(model, *batch, seeded()) for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES.names()) - HARD))
def test_an_objective_takes_shares_of_classes_as_labels(name, model, batch):
    x, y = batch
    objective = build_objective(name)
    model[1].momentum = 0.0
    hard, soft = (objective(model, x, labels, seeded()) for labels in (y, F.one_hot(y, 3).float()))
    torch.testing.assert_close(hard, soft)


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_gradients_arrive_under_autocast(name, model, batch):
    """A weight cast while gradients are off, and kept, would get none."""
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        loss = build_objective(name)(model, *batch, seeded())
    loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model[4].parameters())


def test_standard_is_cross_entropy(model, batch):
    x, y = batch
    assert torch.equal(Standard()(model, x, y, seeded()), F.cross_entropy(model(x), y))
    # one of three classes; 0.3 spread over all leaves 0.8 and two times 0.1
    smoothed = Standard(label_smoothing=0.3)(lambda _: torch.log(torch.tensor([[0.8, 0.1, 0.1]])), x, y[:1] * 0, None)
    assert smoothed.item() == pytest.approx(-0.8 * math.log(0.8) - 0.2 * math.log(0.1))


def test_attacked_images_cost_more_than_clean_ones(model, batch):
    assert PgdAt(eps=0.1)(model, *batch, seeded()) > Standard()(model, *batch, seeded())


@pytest.mark.parametrize(("mode", "updates"), [("eval", 1), ("train", 4)])
def test_batchnorm_statistics_move_once_a_step_unless_the_attack_runs_in_training_mode(mode, updates, model, batch):
    PgdAt(eps=0.1, steps=3, attack_mode=mode)(model, *batch, seeded())
    assert model[1].num_batches_tracked == updates


def test_trades_without_its_divergence_is_ordinary_training_and_costs_more_with_it(model, batch):
    x, y = batch
    plain = Trades(beta=0)(model, x, y, seeded())
    torch.testing.assert_close(plain, F.cross_entropy(model(x), y))
    assert Trades(beta=6, eps=0.1)(model, x, y, seeded()) > plain


def test_trades_climbs_the_divergence_and_not_the_label(batch):
    """Of logits (0, s x) the answer moves most where x changes most, whatever the label is."""
    x = torch.full((1, 1, 1, 1), 0.5)

    def answer(images):
        return torch.cat([torch.zeros(1, 1), 4 * images.flatten(1)], dim=1)

    class Answer(nn.Module):
        def forward(self, images):
            return answer(images)

    losses = [Trades(eps=0.2, beta=1.0)(Answer(), x, torch.tensor([label]), seeded()) for label in (0, 1)]
    clean = [F.cross_entropy(answer(x), torch.tensor([label])) for label in (0, 1)]
    moved = [float(loss - own) for loss, own in zip(losses, clean, strict=True)]
    p = torch.softmax(answer(x), 1)
    ends = [float((p * (p / torch.softmax(answer(x + side), 1)).log()).sum()) for side in (-0.2, 0.2)]
    assert moved[0] == pytest.approx(moved[1], rel=1e-5)
    assert min(abs(moved[0] - end) for end in ends) < 1e-6  # a whole step to one side, from where chance began


def test_mart_of_known_logits():
    # p = (1/2, 1/4, 1/4), y = 0: -log 1/2 - log(1 - 1/4)
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    expected = -math.log(0.5) - math.log(0.75)
    assert boosted_cross_entropy(logits, torch.tensor([0])).item() == pytest.approx(expected)
    assert torch.isfinite(boosted_cross_entropy(torch.tensor([[-500.0, 500.0]]), torch.tensor([0]))).all()


def test_mart_weighs_the_divergence_by_what_is_missing_from_the_true_class(batch):
    class Sure(nn.Module):
        """Right beyond doubt, whatever the images are, but never in the same words."""

        def forward(self, images):
            moved = images.mean(dim=(1, 2, 3))
            return torch.stack([moved * 0 + 60, moved, -moved], dim=1)

    x, y = batch[0], torch.zeros(8, dtype=torch.long)
    plain, weighed = (Mart(weight=weight, eps=0.1)(Sure(), x, y, seeded()) for weight in (0.0, 1000.0))
    torch.testing.assert_close(plain, weighed)
    with pytest.raises(OptionError, match="leave mixup and cutmix out"):
        Mart()(Sure(), x, F.one_hot(y, 3).float(), seeded())


@pytest.mark.parametrize("bn", ["joint", "dual"])
def test_adv_mix_adds_two_losses(bn, model, batch):
    x, y = batch
    model.eval()
    alone, attacked = Standard()(model, x, y, seeded()), PgdAt(eps=0.1)(model, x, y, seeded())
    both = AdvMix(eps=0.1, weight=3.0, bn=bn)(model, x, y, seeded())
    torch.testing.assert_close(both, alone + 3 * attacked)
    share = AdvMix(eps=0.1, weight=3.0, bn=bn, normalised=True)(model, x, y, seeded())
    torch.testing.assert_close(share, both / 4)


@pytest.mark.parametrize(("bn", "updates"), [("joint", 1), ("dual", 2)])
def test_adv_mix_normalises_clean_and_attacked_images_together_or_apart(bn, updates, model, batch):
    AdvMix(eps=0.1, bn=bn)(model, *batch, seeded())
    assert model[1].num_batches_tracked == updates


def test_statistics_that_ship_average_clean_and_attacked_images(batch):
    """In the long run ``r = (1 - m)^2 r + (1 - m) m clean + m attacked``: both count, and neither alone ships."""

    class Shifted(AdvMix):
        def attacked(self, model, x, *_):
            return x + 2.0

    x, y = batch[0].expand(-1, 3, -1, -1), batch[1]
    norm = nn.BatchNorm2d(3, affine=False)
    model = nn.Sequential(norm, nn.AdaptiveAvgPool2d(1), nn.Flatten()).train()
    for _ in range(100):
        Shifted(bn="dual")(model, x, y, seeded())
    m, clean = norm.momentum, x.mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean, clean + 2.0 / (2 - m), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm.running_var, x.transpose(0, 1).flatten(1).var(dim=1), rtol=1e-4, atol=1e-5)


def test_fast_at_takes_one_step_that_may_reach_the_rim(batch):
    x, y = batch
    seen = []

    class Spy(nn.Flatten):
        def forward(self, images):
            seen.append(images.detach())
            return super().forward(images)[:, :3] * 9

    FastAt(eps=0.1)(Spy(), x, y, seeded())
    assert len(seen) == 2
    moved = (seen[1] - x).abs()
    assert moved.max() == pytest.approx(0.1, abs=1e-6)
    assert FastAt(eps=0.1).watched(Spy(), x, seen[0].flatten(1)[:, :3].argmax(1), seeded()) < 1


def test_free_at_carries_its_perturbation_from_step_to_step(model, batch):
    x, y = batch
    objective, carried = FreeAt(eps=0.1, replays=2), {}
    objective.replay(model, x, y, carried).backward()
    first = carried["delta"].clone()
    assert all(value in (0.0, pytest.approx(0.1)) for value in first.abs().unique().tolist())
    assert (first != 0).any()
    expected = F.cross_entropy(model((x + first).clamp(0, 1)), y)
    loss = objective.replay(model, x, y, carried)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert carried["delta"].abs().max() <= 0.1 + 1e-7
    objective.replay(model, x[:5], y[:5], carried).backward()  # a smaller batch uses the first of them
    assert carried["delta"].shape == x.shape


def test_free_at_forgets_a_gradient_that_overflowed(model, batch):
    x, y = batch
    carried = {}
    FreeAt(eps=0.1).replay(model, x, y, carried).backward(gradient=torch.tensor(float("nan")))  # as fp16 scaling may
    assert (carried["delta"] == 0).all()


def test_gradalign_of_a_linear_model_has_nothing_to_punish(batch):
    x, y = batch
    line = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False))  # two classes: the gradient never turns
    zero, much = (GradAlign(eps=0.1, weight=weight)(line, x, y % 2, seeded()) for weight in (0.0, 1000.0))
    torch.testing.assert_close(zero, much, rtol=1e-3, atol=1e-3)


def test_gradalign_punishes_gradients_that_turn_and_teaches_the_model_not_to(model, batch):
    x, y = batch
    weight = model[0].weight
    plain, punished = (
        torch.autograd.grad(GradAlign(eps=0.1, weight=share)(model, x, y, seeded()), weight)[0] for share in (0.0, 5.0)
    )
    assert not torch.allclose(plain, punished)
    opposite = misalignment(torch.tensor([[1.0, 2.0]]), torch.tensor([[-2.0, -4.0]]))
    assert opposite.item() == pytest.approx(2.0)
    assert misalignment(torch.zeros(2, 3), torch.ones(2, 3)) == 0


def test_objectives_are_built_from_text():
    assert build_objective("pgd-at:eps=8/255,steps=7") == PgdAt(eps=8 / 255, steps=7)
    assert build_objective("pgd-at:eps=8/255;steps=7") == PgdAt(eps=8 / 255, steps=7)  # as in a step of a recipe
    assert build_objective("train.standard") == Standard()
    assert build_objective("standard").eps == 0
    assert build_objective("adv-mix:bn=dual,normalised=true") == AdvMix(bn="dual", normalised=True)
    with pytest.raises(OptionError, match=r"did you mean 'train\.pgd_at'"):
        build_objective("pgd-ta")


@pytest.mark.parametrize("bad", [{"eps": 0}, {"eps": 8}, {"steps": 0}, {"step_size": 0}])
def test_attacks_without_sense_are_refused(bad):
    with pytest.raises(OptionError, match=r"pgd-at needs .* write 8/255.* got eps="):
        PgdAt(**bad)


@pytest.mark.parametrize(
    "bad",
    [
        "standard:label_smoothing=1",
        "pgd-at:label_smoothing=-1",
        "trades:beta=-1",
        "trades:beta=inf",
        "mart:weight=-1",
        "adv-mix:weight=-1",
        "fast-at:max_drop=0",
        "free-at:replays=0",
        "free-at:eps=0",
        "gradalign:weight=-1",
        "gradalign:steps=2",
    ],
)
def test_settings_without_sense_are_refused(bad):
    with pytest.raises(OptionError):
        build_objective(bad)
