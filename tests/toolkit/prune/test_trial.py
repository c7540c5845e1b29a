"""Couplings whose channels take a way that was misread stay whole; all others are pruned."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from rctk.compress import STEPS
from rctk.compress.step import Context
from rctk.prune.cost import cost
from rctk.prune.coupling import find_couplings
from rctk.prune.trial import understood
from rctk_export.input_spec import InputSpec

SPEC = InputSpec(channels=3, height=8, width=8)


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval()


@pytest.fixture
def small(split):
    images = replace(split, images=split.images[:, :, :8, :8].copy())
    return Context(train=images, validation=images, input=SPEC)


class Padded(nn.Module):
    """Its second layer pads channels in forward(), where nothing can be exchanged; the rest is plain."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.narrow = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)
        self.hidden, self.fc = nn.Linear(16, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = self.narrow(self.stem(x).relu())
        return self.fc(self.hidden(F.pad(x.mean(dim=(2, 3)), (8, 0))).relu())


class Shuffle(nn.Module):
    """A channel shuffle between two halves, as in ShuffleNet, at which Torch-Pruning divides by zero."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.back = nn.Conv2d(3, 16, 3), nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1)
        self.last, self.fc = nn.Conv2d(16, 16, 1), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        left, right = self.stem(x).chunk(2, dim=1)
        x = torch.cat([left, self.back(self.inner(right).relu())], dim=1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.fc(self.last(x).relu().mean(dim=(2, 3)))


class Attention(nn.Module):
    """Heads of a literal size, and a hidden layer that nothing hinders."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.qkv, self.out = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 48), nn.Linear(16, 16)
        self.norm, self.hidden, self.fc = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = self.norm(self.patches(x).flatten(2).transpose(1, 2))
        q, k, v = self.qkv(x).reshape(len(x), -1, 3, 4, 4).permute(2, 0, 3, 1, 4)
        x = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))
        return self.fc(self.hidden(x).relu().mean(dim=1))


class Scales(nn.Module):
    """Features of two depths beside each other, one of them flattened; Torch-Pruning never comes to an end there."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3), nn.Linear(16 + 32 + 64, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        a = self.a(x).relu()
        b = self.b(a).relu()
        return self.fc(torch.cat([a.mean((2, 3)), b.amax((2, 3)), F.adaptive_avg_pool2d(a, 2).flatten(1)], dim=1))


def test_only_what_was_misread_stays_whole():
    module = seeded(Padded)
    found = find_couplings(module, SPEC).free
    assert {each.name for each in found} == {"stem", "narrow", "hidden"}
    free, whole = understood(module, found, SPEC)
    assert {each.name for each in free} == {"stem", "hidden"}
    assert "differ from the masked one by" in whole["narrow"]


class Contrary(nn.Module):
    """Either of two layers can lose half of its channels, and not both."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 16, 3), nn.Conv2d(3, 16, 3), nn.Linear(4, 4)
        self.c, self.d = nn.Conv2d(16, 4, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        a, b = self.a(x).relu(), self.b(x).relu()
        assert a.shape[1] + b.shape[1] >= 24
        return self.fc((self.c(a) + self.d(b)).mean(dim=(2, 3)))


def test_of_two_that_contradict_each_other_the_first_can_be_cut():
    module = seeded(Contrary)
    both = [each for each in find_couplings(module, SPEC).free if each.name in {"a", "b"}]
    free, whole = understood(module, both, SPEC)
    assert free == (both[0],)
    assert whole[both[1].name].startswith("without some of them the network would not run (")


def test_what_is_tried_out_is_left_as_it_was():
    module = seeded(Padded)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    understood(module, find_couplings(module, SPEC).free, SPEC)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert understood(module, [], SPEC) == ((), {})


@pytest.mark.parametrize(
    ("make", "pruned", "whole"),
    [
        (Padded, {"stem", "hidden"}, {"narrow"}),
        (Shuffle, {"inner", "last"}, {"stem"}),
        (Attention, {"hidden"}, {"qkv"}),
    ],
)
def test_a_network_with_one_way_that_was_misread_is_pruned_elsewhere(make, pruned, whole, small):
    module = seeded(make)
    before, widths = cost(module, SPEC), {name: len(layer.weight) for name, layer in weighted(module)}
    module = STEPS.build("prune.depgraph:ratio=0.3,by=channels,scope=local,round_to=1,min_channels=1")(module, small)
    smaller = {name for name, layer in weighted(module) if len(layer.weight) < widths[name]}
    assert smaller >= pruned
    assert not smaller & whole
    assert cost(module, SPEC).macs < before.macs
    assert torch.isfinite(module(torch.rand(2, 3, 8, 8))).all()


def weighted(module):
    return [(name, layer) for name, layer in module.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]


def test_a_way_without_end_is_given_up():
    whole = find_couplings(seeded(Scales), SPEC).whole
    assert whole["a"].startswith("Torch-Pruning cannot follow its channels")


def test_a_weight_that_is_computed_from_others_stays_whole_and_dense(small):
    module = seeded(lambda: nn.Sequential(weight_norm(nn.Conv2d(3, 16, 3)), nn.Conv2d(16, 16, 3), *head(16)))
    assert find_couplings(module, SPEC).whole["0"] == "0 (ParametrizedConv2d) cannot lose channels"
    module = seeded(lambda: nn.Sequential(nn.Conv2d(3, 16, 3), weight_norm(nn.Conv2d(16, 16, 3)), *head(16)))
    assert STEPS.build("prune.nm24")(module, small)[1].weight.count_nonzero() == 16 * 16 * 9


def head(channels):
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4)


def test_a_single_channel_is_told_from_a_grouped_convolution():
    module = seeded(lambda: nn.Sequential(nn.Conv2d(3, 1, 3), nn.ReLU(), nn.Conv2d(1, 8, 3), *head(8)))
    assert find_couplings(module, SPEC).whole["0"] == "there is one alone"
