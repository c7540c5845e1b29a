"""Residual blocks that go, and those that cannot."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rctk.checkpoint import load_model, save_checkpoint
from rctk.compress import STEPS
from rctk.models import arch_of
from rctk.prune.cost import cost
from rctk.prune.layers import removable_blocks
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import OptionError

CIFAR = InputSpec(channels=3, height=32, width=32, mean=(0.5,) * 3, std=(0.25,) * 3)


def test_blocks_around_an_identity_are_found(network):
    same = ["layer1.0", "layer1.1", "layer1.2", "layer2.1", "layer2.2", "layer3.1", "layer3.2"]
    assert removable_blocks(network("resnet20"), CIFAR) == same
    assert removable_blocks(network("resnet18"), CIFAR) == [
        "layer1.0",
        "layer1.1",
        "layer2.1",
        "layer3.1",
        "layer4.1",
    ]
    assert removable_blocks(network("vgg16-bn"), CIFAR) == []
    inverted = removable_blocks(network("mobilenetv2"), CIFAR)
    assert len(inverted) == 10
    assert "features.1" not in inverted  # widens from 32 to 16 channels
    assert len(removable_blocks(network("wrn-28-4"), CIFAR)) == 9  # pre-activation blocks; the first of a stage widens


@pytest.mark.parametrize("criterion", ["removal", "l2", "expected-abs"])
def test_a_block_that_does_nothing_is_the_first_to_go(criterion, network, context, images):
    module = network("resnet20-b")
    silent = module.layer2[1]
    with torch.no_grad():
        for layer in (silent.conv1, silent.bn1, silent.conv2, silent.bn2):
            for parameter in layer.parameters():
                parameter.zero_()
    expected = module(images)
    step = STEPS.build(f"prune.layers:blocks=1,criterion={criterion},images=16")
    module = step(module, context)
    assert isinstance(module.layer2[1], nn.Identity)
    assert torch.equal(module(images), expected)


def test_a_shorter_network_comes_back_from_disk(network, context, images, tmp_path):
    module = STEPS.build("prune.layers:blocks=3,images=8")(network("resnet20"), context)
    before = cost(network("resnet20"), CIFAR)
    module = STEPS.build("prune.depgraph:ratio=0.2,round_to=4,min_channels=4")(module, context)
    arch = arch_of(module, "resnet20", classes=10, input=CIFAR)
    save_checkpoint(tmp_path / "a.pt", module, arch=arch, input=CIFAR, classes=tuple("0123456789"))
    loaded = load_model(tmp_path / "a.pt").module
    assert torch.equal(loaded(images), module(images))
    left = [name for name, _ in loaded.named_modules() if name.endswith(".conv2")]
    assert len(left) == 9 - 3
    assert cost(loaded, CIFAR).macs < 0.8 * before.macs


def test_more_blocks_than_there_are_cannot_go(network, context):
    with pytest.raises(OptionError, match="7 blocks have an identity shortcut, blocks=8 cannot go"):
        STEPS.build("prune.layers:blocks=8")(network("resnet20"), context)
    with pytest.raises(OptionError, match=r"no block .* has an identity shortcut; prune channels with prune.depgraph"):
        STEPS.build("prune.layers")(network("vgg16-bn"), context)
    with pytest.raises(OptionError, match="blocks and images are 1 or more"):
        STEPS.build("prune.layers:blocks=0")
