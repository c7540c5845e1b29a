"""Modules whose layers differ from those of their architecture, on disk and back."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from rctk.checkpoint import load_model, save_checkpoint
from rctk.model_io.layers import change_layers, changed_layers
from rctk.models import build_architecture
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import ModelError

SPEC = InputSpec(channels=3, height=32, width=32)


@pytest.fixture
def resnet():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_architecture("resnet20-b", classes=10, input=SPEC).eval()


@pytest.fixture
def narrow(resnet):
    """One block narrower, another without its branch, and the stem with a bias."""
    module = copy.deepcopy(resnet)
    block = module.layer1[0]
    block.conv1, block.bn1 = nn.Conv2d(16, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
    block.conv2 = nn.Conv2d(5, 16, 3, padding=1, bias=False)
    module.conv1 = nn.Conv2d(3, 16, 3, padding=1)
    module.layer2[1] = nn.Identity()
    del module.layer3[2]
    return module.eval()


def test_nothing_is_said_about_an_unchanged_module(resnet):
    assert changed_layers(resnet, copy.deepcopy(resnet)) == {}


def test_changed_exchanged_and_missing_layers_are_named(narrow, resnet):
    changed = changed_layers(narrow, resnet)
    places = ["conv1", "layer1.0.conv1", "layer1.0.bn1", "layer1.0.conv2", "layer2.1", "layer3.2"]
    assert list(changed) == places
    assert changed["layer1.0.conv1"]["out_channels"] == 5
    assert changed["conv1"]["bias"] is True
    assert changed["layer2.1"] == {"kind": "Identity"}
    assert changed["layer3.2"] == {"kind": "absent"}


def test_a_fresh_module_becomes_the_changed_one(narrow, resnet):
    layers = json.loads(json.dumps(changed_layers(narrow, resnet)))
    fresh = copy.deepcopy(resnet)
    change_layers(fresh, layers)
    fresh.load_state_dict(narrow.state_dict())
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fresh.eval()(images), narrow(images))
    assert changed_layers(fresh, narrow) == {}


def test_an_identity_may_become_several_layers(resnet):
    module = copy.deepcopy(resnet)
    module.layer1[0].downsample = nn.Sequential(nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16))
    fresh = copy.deepcopy(resnet)
    change_layers(fresh, changed_layers(module, resnet))
    fresh.load_state_dict(module.state_dict())


@pytest.mark.parametrize("name", ["small.pt", "small.safetensors"])
def test_a_checkpoint_keeps_them_without_a_flag(name, narrow, resnet, tmp_path):
    path = tmp_path / name
    layers = changed_layers(narrow, resnet)
    save_checkpoint(path, narrow, arch="resnet20-b", input=SPEC, classes=tuple("0123456789"), layers=layers)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load_model(path).module(images), narrow(images))


def test_other_kinds_of_layers_are_refused(resnet):
    module = copy.deepcopy(resnet)
    module.conv1 = nn.ConvTranspose2d(3, 16, 3)
    with pytest.raises(ModelError, match="conv1 is a ConvTranspose2d now, which a checkpoint cannot describe"):
        changed_layers(module, resnet)


@pytest.mark.parametrize(
    ("name", "described"),
    [
        ("nowhere.conv1", {"kind": "Identity"}),
        ("conv1", {"kind": "Pickle"}),
        ("conv1", {"kind": "Conv2d", "in_channels": -1}),
        ("forward", {"kind": "absent"}),
        ("training", {"kind": "Identity"}),
    ],
)
def test_damaged_descriptions_are_refused(name, described, resnet):
    with pytest.raises(ModelError, match="save the model again"):
        change_layers(resnet, {name: described})
