"""Costs are counted from the module; the exported graph agrees in test_pipeline.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rctk.models.selection import Selection, select_instead_of_pad
from rctk.prune.budget import Estimate
from rctk.prune.cost import cost
from rctk.prune.coupling import find_couplings
from rctk_export.input_spec import InputSpec

CIFAR = InputSpec(channels=3, height=32, width=32, mean=(0.5,) * 3, std=(0.25,) * 3)


def test_a_cost_worked_out_by_hand():
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=4),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 10),
    )
    with torch.no_grad():
        module[0].weight[0] = 0
        module[1].bias.fill_(1)
    found = cost(module, InputSpec(channels=3, height=8, width=8))
    assert found.parameters == 8 * 3 * 9 + 16 + (8 * 2 * 9 + 8) + (128 * 10 + 10)
    assert found.nonzero == found.parameters - 27
    assert found.macs == 64 * 8 * 27 + 16 * 8 * 18 + 1280
    assert found.size_bytes == 4 * (found.parameters + 16) + 8  # running statistics, and an int64 count of batches


def test_fixed_weights_are_no_parameters():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), Selection(4, 8, 2, 2), nn.Flatten(), nn.Linear(8 * 16, 2))
    assert cost(module, InputSpec(channels=3, height=8, width=8)).parameters == 16 + 258


@pytest.mark.parametrize("arch", ["resnet20", "mobilenetv2", "vgg16-bn"])
def test_the_estimate_that_steers_agrees_with_the_count(arch, network):
    module = network(arch)
    select_instead_of_pad(module, CIFAR.shape)
    estimate = Estimate(module, find_couplings(module, CIFAR).free, CIFAR)
    counted = cost(module, CIFAR)
    assert (estimate.params({}), estimate.macs({})) == (counted.parameters, counted.macs)


class Unusual(nn.Module):
    """What the estimate cannot count by layers: tokens, a scalar, a layer called twice, and functional operators."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.gain = nn.Parameter(torch.ones(8, 3, 3, 3)), nn.Parameter(torch.tensor(0.5))
        self.twice, self.up = nn.Conv2d(8, 8, 3, padding=1), nn.ConvTranspose2d(8, 8, 2, 2)
        self.tokens, self.attention = nn.Linear(8, 16), nn.MultiheadAttention(16, 2, batch_first=True)
        self.classifier = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = nn.functional.conv2d(x, self.kernel, stride=2)
        x = self.up(self.gain * self.twice(self.twice(x)))
        x = self.tokens(x.flatten(2).transpose(1, 2))
        return self.classifier(self.attention(x, x, x)[0].mean(dim=1))


def test_the_estimate_counts_what_is_no_layer_too():
    module, spec = Unusual().eval(), InputSpec(channels=3, height=8, width=8)
    estimate, counted = Estimate(module, find_couplings(module, spec).free, spec), cost(module, spec)
    assert (estimate.params({}), estimate.macs({})) == (counted.parameters, counted.macs)


def test_a_linear_layer_on_tokens_is_weighed_by_their_number():
    layers = nn.Conv2d(3, 8, 4, 4), nn.Flatten(2), Transposed(), nn.Linear(8, 32), nn.Linear(32, 4), Mean()
    module, spec = nn.Sequential(*layers).eval(), InputSpec(channels=3, height=8, width=8)
    (hidden,) = [each for each in find_couplings(module, spec).free if each.name == "3"]
    estimate = Estimate(module, [hidden], spec)
    assert estimate.macs({}) - estimate.macs({"3": frozenset(range(16))}) == 4 * 16 * (8 + 4)  # four tokens


class Transposed(nn.Module):
    """Channels become the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, T, C)`` of ``(N, C, T)``."""
        return x.transpose(1, 2)


class Mean(nn.Module):
    """The mean over tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, C)`` of ``(N, T, C)``."""
        return x.mean(dim=1)
