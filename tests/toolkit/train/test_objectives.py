import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rctk.train import OBJECTIVES, build_objective
from rctk.train.pgd_at import PgdAt
from rctk.train.standard import Standard
from rctk_kernels.errors import OptionError


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3)).train()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(8, 1, 8, 8, generator=generator), torch.randint(0, 3, (8,), generator=generator)


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_an_objective_gives_a_loss_that_reaches_every_parameter(name, model, batch):
    before = torch.get_rng_state()
    loss = build_objective(name)(model, *batch, torch.Generator().manual_seed(1))
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
    first, again = (objective(model, *batch, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)


def test_standard_is_cross_entropy(model, batch):
    x, y = batch
    expected = F.cross_entropy(model(x), y)
    assert torch.equal(Standard()(model, x, y, torch.Generator()), expected)


def test_attacked_images_cost_more_than_clean_ones(model, batch):
    generator = torch.Generator().manual_seed(1)
    assert PgdAt(eps=0.1)(model, *batch, generator) > Standard()(model, *batch, generator)


@pytest.mark.parametrize(("mode", "updates"), [("eval", 1), ("train", 4)])
def test_batchnorm_statistics_move_once_a_step_unless_the_attack_runs_in_training_mode(mode, updates, model, batch):
    PgdAt(eps=0.1, steps=3, attack_mode=mode)(model, *batch, torch.Generator())
    assert model[1].num_batches_tracked == updates


def test_objectives_are_built_from_text():
    assert build_objective("pgd-at:eps=8/255,steps=7") == PgdAt(eps=8 / 255, steps=7)
    assert build_objective("train.standard") == Standard()
    assert build_objective("standard").eps == 0
    with pytest.raises(OptionError, match=r"did you mean 'train\.pgd_at'"):
        build_objective("pgd-ta")


@pytest.mark.parametrize("bad", [{"eps": 0}, {"eps": 8}, {"steps": 0}, {"step_size": 0}])
def test_attacks_without_sense_are_refused(bad):
    with pytest.raises(OptionError, match="pgd-at needs"):
        PgdAt(**bad)
