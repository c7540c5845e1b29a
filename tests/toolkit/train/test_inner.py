import pytest
import torch
from torch import nn

from rctk.train.inner import InnerPgd, modes_kept


def linear():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    weight = torch.tensor([[1.0, -2.0, 3.0, 0.5], [0.0, 0.0, 0.0, 1.0]])
    model[1].weight.data, model[1].bias.data = weight, torch.zeros(2)
    return model


def test_pgd_finds_the_worst_corner_of_a_linear_model():
    x = torch.tensor([[[[0.5, 0.5], [0.02, 0.99]]]])
    adversarial = InnerPgd(eps=0.1, steps=10, step_size=0.5)(linear(), x, torch.tensor([0]), torch.Generator())
    # the margin is 1 x0 - 2 x1 + 3 x2 - 0.5 x3: down, up, down as far as 0, up as far as 1
    torch.testing.assert_close(adversarial, torch.tensor([[[[0.4, 0.6], [0.0, 1.0]]]]))


def test_pgd_stays_in_its_budget_and_leaves_gradients_modes_and_the_global_generator_alone():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 3)).eval()
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    statistics, before = model[1].running_mean.clone(), torch.get_rng_state()
    attack = InnerPgd(eps=0.2, steps=3, step_size=1.0)
    adversarial = attack(model, x, torch.zeros(6, dtype=torch.long), torch.Generator().manual_seed(1))
    assert (adversarial - x).abs().max() <= 0.2 + 1e-6
    assert 0 <= adversarial.min() <= adversarial.max() <= 1
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(model[1].running_mean, statistics)
    assert torch.equal(torch.get_rng_state(), before)
    assert not adversarial.requires_grad


def test_every_submodule_gets_its_own_mode_back_even_after_an_error():
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1)).train()
    model[1].eval()

    def fails():
        with modes_kept(model):
            model.eval()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert [module.training for module in model.modules()] == [True, True, False]
