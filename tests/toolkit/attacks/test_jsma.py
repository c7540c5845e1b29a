from __future__ import annotations

import copy

import pytest
import torch
import torchattacks
from torch import nn

from rctk.attacks.jsma import JSMA, best_pair
from rctk.evaluation.counted_model import CountedModel
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError

THREAT = ThreatModel(norm="l1", eps=64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch(digits):
    return torch.from_numpy(digits.split.images[:40]), torch.from_numpy(digits.split.labels[:40])


def wrong(model, x, y):
    with torch.no_grad():
        return model(x).argmax(1) != y


def changed(found, x):
    return (found != x).flatten(1).sum(1)


def test_the_pair_that_raises_the_target_and_lowers_the_others_most_is_changed():
    # the true class 0 looks at pixels 0 and 1; the target 1 gains 3 at pixel 2, 2 at pixel 3 and 9 at pixel 4, where
    # the true class gains 20: the best pair is 2 and 3
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 2, bias=False))
    net[1].weight.data = torch.tensor([[2.0, 2.0, -1.0, -1.0, 20.0, 0.0], [0.0, 0.0, 3.0, 2.0, 9.0, 0.1]])
    x = torch.tensor([0.9, 0.9, 0.1, 0.2, 0.0, 0.0]).view(1, 1, 2, 3)
    found = JSMA(steps=1)(net, x, torch.tensor([0]), THREAT, generator())
    assert torch.equal(found.flatten(), torch.tensor([0.9, 0.9, 1.0, 1.0, 0.0, 0.0]))
    assert wrong(net, found, torch.tensor([0])).all()


def test_a_smaller_theta_moves_by_it_and_a_negative_one_darkens():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    net[1].weight.data = torch.tensor([[5.0, 4.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    found = JSMA(steps=1, theta=-0.25)(net, x, y, THREAT, generator())
    # darkening pixels 0 and 1 lowers the true class; nothing raises the target, whose logit is constant
    assert torch.equal(found, x)
    net[1].weight.data[1] = torch.tensor([-1.0, -1.0, 0.0, 0.0])
    found = JSMA(steps=1, theta=-0.25)(net, x, y, THREAT, generator())
    assert torch.equal(found.flatten(), torch.tensor([0.25, 0.25, 0.5, 0.5]))


@pytest.mark.parametrize("size", [5, 70, 300])
def test_the_best_pair_is_the_best_of_all_pairs(size):
    for seed in range(10):
        a, b = torch.randn(2, 3, size, generator=generator(seed))
        a[0, :3] = -torch.inf  # not to be taken
        if seed % 3 == 0:
            b = -a.where(a.isfinite(), torch.zeros(())) + 0.2 * b  # rise and fall at odds, as in real gradients
        pair = best_pair(a, b)
        for row in range(3):
            first, second = a[row][:, None] + a[row], b[row][:, None] + b[row]
            every = torch.where((first > 0) & (second > 0), first * second, 0.0).fill_diagonal_(0)
            assert pair.found[row] == (every.max() > 0)
            if pair.found[row]:
                assert float(every[tuple(pair.places[row])]) == pytest.approx(float(every.max()), rel=1e-6)


def test_no_pair_is_found_where_nothing_helps():
    assert not best_pair(torch.tensor([[-1.0, -2.0, 0.5]]), torch.tensor([[1.0, 1.0, -9.0]])).found.any()


def test_five_classes_are_an_index_error_in_theirs_and_attacked_by_ours():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 5, bias=False))
    net[1].weight.data = torch.randn(5, 16, generator=generator())
    x = torch.rand(6, 1, 4, 4, generator=generator())
    with torch.no_grad():
        y = net(x).argmax(1)
    y_last = torch.full_like(y, 4)
    with pytest.raises((IndexError, RuntimeError)):
        torchattacks.JSMA(copy.deepcopy(net))(x, y_last)
    assert wrong(net, JSMA(targets=4)(net, x, y, THREAT, generator()), y).float().mean() > 0.5


def test_more_targets_break_more_images_and_see_only_survivors(digits, batch):
    x, y = batch
    one, four = CountedModel(digits.robust), CountedModel(digits.robust)
    single = JSMA()(one, x, y, THREAT, generator())
    several = JSMA(targets=4)(four, x, y, THREAT, generator())
    broken = wrong(digits.robust, single, y)
    assert 0.5 < broken.float().mean() < 1
    assert wrong(digits.robust, several, y).sum() > broken.sum()
    assert torch.equal(single[broken], several[broken])
    assert four.forward_images < 2 * one.forward_images


def test_few_values_change_and_each_to_the_end(digits, batch):
    x, y = batch
    found = JSMA(targets=9)(digits.robust, x, y, THREAT, generator())
    assert wrong(digits.robust, found, y).all()
    assert changed(found, x).float().mean() < 12
    assert (found[found != x] == 1).all()


def test_an_image_of_many_values_needs_no_memory_for_all_pairs():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 3, bias=False))
    net[1].weight.data = torch.randn(3, 3 * 64 * 64, generator=generator())
    x = torch.rand(2, 3, 64, 64, generator=generator())
    with torch.no_grad():
        y = net(x).argmax(1)
    found = JSMA(steps=100)(net, x, y, THREAT, generator())  # all pairs would take 600 MB per image and step
    assert wrong(net, found, y).all()


@pytest.mark.parametrize("settings", [{"steps": 0}, {"theta": 0.0}, {"theta": 1.5}, {"targets": 0}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(OptionError, match="jsma needs"):
        JSMA(**settings)
