"""The pruned network that Torch-Pruning's authors published, and the dense one it came from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from rctk.checkpoint import load_model
from rctk.prune.cost import cost
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import ModelError

CIFAR = InputSpec(channels=3, height=32, width=32, mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))


def published(name):
    path = Path(os.environ.get("RCTK_MODELS", "absent")) / "cifar10" / name
    if not path.is_file():
        pytest.skip(f"no {name} below RCTK_MODELS")
    return path


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "arch", "parameters", "million_macs"),
    [
        ("resnet56_group_sl_dense.pth", "resnet56-b", 855_770, 125.7),
        ("resnet56_group_sl_pruned.pth", "pruned:resnet56-b", 294_225, 47.8),
    ],
)
def test_its_published_size_is_what_we_count(name, arch, parameters, million_macs):
    found = cost(load_model(published(name), arch=arch, input=CIFAR).module, CIFAR)
    assert found.parameters == parameters
    assert found.macs / 1e6 == pytest.approx(million_macs, abs=0.05)


@pytest.mark.data
def test_widths_are_read_from_the_weights_without_code():
    module = load_model(published("resnet56_group_sl_pruned.pth"), arch="pruned:resnet56-b", input=CIFAR).module
    assert module.conv1.out_channels == 12
    assert [module.layer1[0].conv1.out_channels, module.layer1[1].conv1.out_channels] == [9, 5]
    assert module.fc.in_features == 25


@pytest.mark.data
def test_an_architecture_that_does_not_fit_is_refused_as_ever():
    path = published("resnet56_group_sl_pruned.pth")
    with pytest.raises(ModelError, match="does not fit --arch pruned:vgg16-bn"):
        load_model(path, arch="pruned:vgg16-bn", input=CIFAR)
    with pytest.raises(ModelError, match="does not fit --arch resnet56-b"):
        load_model(path, arch="resnet56-b", input=CIFAR)


def test_a_foreign_layer_is_not_made_to_fit(tmp_path):
    torch.save({"conv1.weight": torch.zeros(4, 3, 5, 5)}, tmp_path / "a.pth")
    with pytest.raises(ModelError, match="does not fit --arch pruned:resnet20"):
        load_model(tmp_path / "a.pth", arch="pruned:resnet20", input=CIFAR)


def test_a_file_with_one_tensor_is_refused_whatever_the_size_of_its_images(tmp_path):
    tiny = InputSpec(channels=3, height=1, width=1)
    state = {"layer2.0.downsample.weight": torch.zeros(32, 16, 1, 1)}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ModelError, match="does not fit --arch pruned:resnet20"):
        load_model(tmp_path / "a.pth", arch="pruned:resnet20", input=tiny)
