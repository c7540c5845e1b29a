"""Costs are counted from the module; the exported graph agrees in test_pipeline.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

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
