import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from rctk.metrics.clever import Clever, fit_reverse_weibull
from rctk_kernels.errors import AttackError, OptionError


def linear(weights, bias):
    layer = nn.Linear(len(weights[0]), len(weights))
    layer.weight.data, layer.bias.data = torch.tensor(weights), torch.tensor(bias)
    return nn.Sequential(nn.Flatten(), layer).eval()


@pytest.fixture
def three_classes():
    return linear([[3.0, 0.0, 0.0, 0.0], [0.0, 4.0, 0.0, 0.0], [0.0, 0.0, 1.0, -2.0]], [1.0, 0.0, -0.5])


IMAGE = torch.tensor([0.8, 0.2, 0.1, 0.3]).reshape(1, 2, 2)
# logits 3.4, 0.8, -1.0; differences of weights (3, -4, 0, 0) and (3, 0, -1, 2)


def score(settings, model, image=IMAGE, label=0, seed=0):
    return settings(model, image, label, torch.Generator().manual_seed(seed))


def test_a_linear_model_has_its_exact_l2_distance(three_classes):
    result = score(Clever(batches=5, samples=8), three_classes)
    assert result.score == pytest.approx(2.6 / 5, rel=1e-5)
    assert [target.target for target in result.targets] == [1, 2]
    assert result.targets[1].score == pytest.approx(4.4 / 14**0.5, rel=1e-5)
    assert all(target.lipschitz.fitted for target in result.targets)


def test_a_linear_model_has_its_exact_linf_distance(three_classes):
    result = score(Clever(norm="linf", radius=1.0, batches=5, samples=8), three_classes)
    assert result.score == pytest.approx(2.6 / 7, rel=1e-5)


def test_the_radius_caps_the_score(three_classes):
    assert score(Clever(radius=0.25, batches=3, samples=4), three_classes).score == 0.25


def test_a_misclassified_image_has_no_distance(three_classes):
    assert score(Clever(batches=3, samples=4), three_classes, label=1) == (0.0, (), 0.0)


def test_top_looks_at_the_nearest_classes_only(three_classes):
    assert [t.target for t in score(Clever(batches=3, samples=4, top=1), three_classes).targets] == [1]


def test_a_curved_margin_is_estimated_from_its_steepest_slope():
    class Bowl(nn.Module):
        def forward(self, x):
            margin = 2 - (x.flatten(1) ** 2).sum(dim=1)  # slope 2 |x|, at most 2 R in the ball around 0
            return torch.stack([margin, torch.zeros_like(margin)], dim=1)

    result = score(Clever(radius=1.0, batches=100, samples=64), Bowl(), image=torch.zeros(1, 1, 3))
    (target,) = result.targets
    assert target.lipschitz.fitted
    assert target.lipschitz.location == pytest.approx(2.0, rel=0.01)
    assert result.score == pytest.approx(1.0, rel=0.01)


def test_flat_gradients_are_counted_and_flatter(three_classes):
    class Stairs(nn.Module):
        def forward(self, x):
            steps = x.flatten(1)[:, :2]
            return steps + (steps.round() - steps).detach() - steps + steps.detach()

    result = score(Clever(batches=3, samples=4), Stairs(), image=torch.tensor([[[1.0, 0.0]]]))
    assert result.zero_gradients == 1
    assert result.score == 5.0  # the radius: why the docstring warns


def test_the_same_generator_gives_the_same_score_and_the_model_is_left_alone(three_classes):
    three_classes.train()
    settings = Clever(batches=4, samples=4)
    assert score(settings, three_classes, seed=3) == score(settings, three_classes, seed=3)
    assert three_classes.training
    assert all(p.grad is None and p.requires_grad for p in three_classes.parameters())


def test_a_model_without_gradients_is_refused():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.tensor([[1.0, 0.0]]).repeat(len(x), 1)

    with pytest.raises(AttackError, match="float model or a twin"):
        score(Clever(batches=2, samples=2), Constant())


@pytest.mark.parametrize(("shape", "tolerance"), [(2.0, 0.02), (4.0, 0.05), (8.0, 0.12)])  # flatter ends are harder
def test_fit_finds_the_end_of_a_reverse_weibull(shape, tolerance):
    maxima = stats.weibull_max(shape, loc=3.0, scale=0.5).rvs(500, random_state=np.random.default_rng(0))
    fit = fit_reverse_weibull(maxima)
    assert fit.fitted
    assert fit.p_value > 0.05
    assert fit.location == pytest.approx(3.0, abs=tolerance)
    assert fit.location >= maxima.max()


@pytest.mark.parametrize("seed", range(4))
def test_maxima_without_an_upper_end_still_give_a_usable_number(seed):
    # of a Gumbel distribution the likelihood has no maximum: it rises with the location for ever
    maxima = stats.gumbel_r(5.0, 0.2).rvs(200, random_state=np.random.default_rng(seed))
    fit = fit_reverse_weibull(maxima)
    assert fit.fitted
    assert maxima.max() < fit.location < maxima.max() + 3 * np.ptp(maxima)


def test_fit_scales_with_its_values():
    maxima = stats.weibull_max(4.0, loc=1.0, scale=0.2).rvs(200, random_state=np.random.default_rng(1))
    one, thousand = fit_reverse_weibull(maxima), fit_reverse_weibull(1000 * maxima)
    assert thousand.location == pytest.approx(1000 * one.location, rel=1e-3)


def test_a_poor_fit_falls_back_to_the_largest_maximum():
    two_heaps = np.r_[np.linspace(1, 1.001, 300), np.linspace(9, 9.001, 300)]
    fit = fit_reverse_weibull(two_heaps)
    assert not fit.fitted
    assert fit.location == 9.001
    assert fit.p_value < 0.001


def test_equal_maxima_are_their_own_end():
    assert fit_reverse_weibull(np.full(10, 2.5)) == (2.5, 1.0, True)
    assert fit_reverse_weibull(np.zeros(10)) == (0.0, 1.0, True)


@pytest.mark.parametrize(
    "settings", [{"norm": "l1"}, {"radius": 0.0}, {"radius": float("inf")}, {"batches": 1}, {"samples": 0}, {"top": 0}]
)
def test_settings_without_sense_are_refused(settings):
    with pytest.raises(OptionError):
        Clever(**settings)
