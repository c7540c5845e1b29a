"""Every criterion keeps the family's promises; each of them is checked on numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from rctk.prune import CRITERIA
from rctk.prune.criterion import ChannelGroup
from rctk_kernels.errors import OptionError

DEAD = 1


@pytest.fixture
def group():
    """Four channels of a linear classifier on four maps; channel 1 is dead."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 4
    maps = torch.randn(40, 4, 5, 5, generator=generator).abs() * 0.3 + F.one_hot(labels)[:, :, None, None]
    producers = torch.randn(4, 9, generator=generator)
    gains = torch.rand(4, generator=generator) + 0.5
    slopes = torch.randn(3, 4, generator=generator)
    reader = torch.randn(4, 4, generator=generator)
    for tensor in (producers, gains):
        tensor[DEAD] = 0
    for tensor in (maps, slopes):
        tensor[:, DEAD] = 0

    def logits(without=None):
        seen = maps.mean(dim=(2, 3)).clone()
        if without is not None:
            seen[:, without] = 0
        return seen @ reader.T

    return ChannelGroup(
        name="conv",
        producers=(producers, 2 * producers),
        gains=(gains,),
        slopes=slopes,
        maps=(maps, maps * 2),
        labels=labels,
        logits=logits(),
        without=logits,
    )


@pytest.mark.parametrize("name", CRITERIA.names())
def test_a_dead_channel_comes_last(name, group):
    score = CRITERIA.build(name)(group)
    assert score.shape == (4,)
    assert score.dtype == torch.float32
    assert score.argmin() == DEAD
    assert score[DEAD] == 0
    assert torch.isfinite(score).all()
    assert (score >= 0).all()
    assert (score > 0).sum() == 3


@pytest.mark.parametrize("name", CRITERIA.names())
def test_a_criterion_repeats_and_leaves_the_random_state_alone(name, group):
    before = torch.get_rng_state()
    first, second = (CRITERIA.build(name)(group) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_norms_of_known_filters():
    first, second = torch.tensor([[3.0, -4.0], [0.0, 1.0]]), torch.tensor([[1.0], [-1.0]])
    group = ChannelGroup(name="a", producers=(first, second))
    assert CRITERIA.build("l1")(group).tolist() == [(7 + 1) / 2, (1 + 1) / 2]
    assert CRITERIA.build("l2")(group).tolist() == [(5 + 1) / 2, (1 + 1) / 2]


def test_scales_count_by_their_size():
    group = ChannelGroup(name="a", gains=(torch.tensor([-2.0, 0.5]), torch.tensor([1.0, 0.5])))
    assert CRITERIA.build("bn-scale")(group).tolist() == [1.5, 0.5]


def test_taylor_averages_after_the_absolute_value():
    group = ChannelGroup(name="a", slopes=torch.tensor([[1.0, 0.5], [-1.0, 0.5]]))
    assert CRITERIA.build("taylor")(group).tolist() == [1.0, 0.5]


def test_rank_of_known_maps():
    maps = torch.stack([torch.eye(3), torch.ones(3, 3), torch.zeros(3, 3)])[None]
    assert CRITERIA.build("hrank")(ChannelGroup(name="a", maps=(maps,))).tolist() == [3.0, 1.0, 0.0]


def test_expected_abs_of_known_maps():
    maps = torch.tensor([[[[-1.0, 3.0]], [[0.0, 1.0]]]])
    assert CRITERIA.build("expected-abs")(ChannelGroup(name="a", maps=(maps,))).tolist() == [2.0, 0.5]


def test_kl_of_known_distributions():
    logits = torch.tensor([[math.log(3.0), 0.0]])  # 3/4 and 1/4
    other = torch.tensor([[0.0, 0.0]])
    group = ChannelGroup(name="a", producers=(torch.ones(1, 1),), logits=logits, without=lambda _: other)
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert CRITERIA.build("kl")(group).item() == pytest.approx(expected, rel=1e-5)


def test_pls_finds_the_channel_that_knows_the_class():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 2
    maps = torch.randn(64, 3, 1, 1, generator=generator)
    maps[:, 2, 0, 0] = labels * 4.0
    score = CRITERIA.build("pls")(ChannelGroup(name="a", maps=(maps,), labels=labels))
    assert score.argmax() == 2
    assert score.square().mean() == pytest.approx(1, rel=1e-4)  # what importances add up to


def test_random_orders_differ_by_seed_and_group(group):
    first = CRITERIA.build("random")(group)
    assert not torch.equal(first, CRITERIA.build("random:seed=1")(group))
    assert not torch.equal(first, CRITERIA.build("random")(replace(group, name="other")))


def test_pls_needs_a_component():
    with pytest.raises(OptionError, match="at least one component"):
        CRITERIA.build("pls:components=0")
