"""What criteria see of the channels that a layer reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rctk.compress import STEPS
from rctk.compress.step import Context
from rctk.data.split import Split
from rctk.prune.coupling import find_couplings
from rctk.prune.evidence import Evidence
from rctk_export.input_spec import InputSpec

SPEC = InputSpec(channels=3, height=8, width=24)


class Function(nn.Module):
    """A function of one tensor as a layer."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Return the function of ``x``."""
        return self.function(x)


def tokens(x):
    return x.flatten(2).transpose(1, 2)


def patches():
    return nn.Conv2d(3, 8, 4, 4)


LAYERS = {
    "sequence": (
        lambda: Function(lambda x: x.flatten(2)),
        lambda: nn.Conv1d(3, 8, 1),
        lambda: nn.Conv1d(8, 4, 1),
        lambda: Function(lambda x: x.mean(2)),
    ),
    "tokens": (patches, lambda: Function(tokens), lambda: nn.Linear(8, 4), lambda: Function(lambda x: x.mean(1))),
    "channels last": (
        patches,
        lambda: Function(lambda x: x.permute(0, 2, 3, 1)),
        lambda: nn.Linear(8, 4),
        lambda: Function(lambda x: x.mean((1, 2))),
    ),
    "vector": (patches, nn.Flatten, lambda: nn.Linear(8 * 12, 4)),
    "map": (patches, lambda: nn.Conv2d(8, 4, 1), lambda: nn.AdaptiveAvgPool2d(1), nn.Flatten),
}


def net(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(*(make() for make in LAYERS[name]))


@pytest.fixture
def split():
    images = np.random.default_rng(0).random((5, 3, 8, 24), dtype=np.float32)
    return Split(name="r", images=images, labels=np.arange(5) % 4)


@pytest.mark.parametrize("name", LAYERS)
def test_maps_are_those_of_the_channels_whatever_axis_these_are_on(name, split):
    module = net(name)
    producer = next(layer for layer in module if isinstance(layer, (nn.Conv1d, nn.Conv2d)))
    (coupling,) = find_couplings(module, SPEC).free
    (found,) = Evidence(module, split, SPEC).group(coupling, "maps").maps
    with torch.no_grad():
        x = torch.from_numpy(split.images)
        expected = producer(x.flatten(2) if isinstance(producer, nn.Conv1d) else x)
    assert found.ndim == 4
    torch.testing.assert_close(found.flatten(2), expected.flatten(2))


@pytest.mark.parametrize("criterion", ["hrank", "pls", "expected-abs"])
@pytest.mark.parametrize("name", ["sequence", "tokens"])
def test_criteria_that_look_at_maps_prune_networks_without(criterion, name, split):
    context = Context(train=split, validation=split, input=SPEC)
    text = f"prune.depgraph:criterion={criterion},ratio=0.5,by=channels,round_to=1,min_channels=1"
    module = STEPS.build(text)(net(name), context)
    assert module(torch.rand(2, 3, 8, 24)).shape == (2, 4)
