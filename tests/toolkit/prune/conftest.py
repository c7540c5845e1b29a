"""Small networks and images for pruning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rctk.compress.step import Context
from rctk.data.split import Split
from rctk.models import build_architecture
from rctk_export.input_spec import InputSpec

CIFAR = InputSpec(channels=3, height=32, width=32, mean=(0.5,) * 3, std=(0.25,) * 3)


def wake(module):
    """Draw weights, and BatchNorm statistics and gains that are not those of a fresh layer."""
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(layer.bias, 0, 0.3, generator=generator)
            nn.init.uniform_(layer.running_var, 0.5, 1.5, generator=generator)
            nn.init.normal_(layer.running_mean, 0, 0.3, generator=generator)
        elif isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
    return module.eval()


@pytest.fixture
def split():
    rng = np.random.default_rng(0)
    images = rng.random((64, 3, 32, 32), dtype=np.float32)
    return Split(name="random", images=images, labels=np.arange(64) % 10)


@pytest.fixture
def context(split):
    return Context(train=split, validation=split, input=CIFAR)


@pytest.fixture
def network():
    def make(arch):
        with torch.random.fork_rng():
            return wake(build_architecture(arch, classes=10, input=CIFAR))

    return make


@pytest.fixture
def images():
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
