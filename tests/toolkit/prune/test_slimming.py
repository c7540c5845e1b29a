"""The penalty of network slimming, by hand and in a short run."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from rctk.compress import STEPS
from rctk.models import build_architecture
from rctk.prune.slimming import SparseScales, bn_scales
from rctk.train.standard import Standard
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import ModelError, OptionError

CIFAR = InputSpec(channels=3, height=32, width=32, mean=(0.5,) * 3, std=(0.25,) * 3)


def test_the_penalty_is_the_sum_of_absolute_scales():
    module = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        module[1].weight.copy_(torch.tensor([-0.5, 2.0]))
    x, y = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 2
    sparse = SparseScales(inner=Standard(), strength=0.1)
    module.eval()
    generator = torch.Generator()
    assert sparse(module, x, y, generator) == Standard()(module, x, y, generator) + 0.25
    without, with_penalty = (
        torch.autograd.grad(objective(module, x, y, generator), module[1].weight)[0]
        for objective in (Standard(), sparse)
    )
    torch.testing.assert_close(with_penalty - without, torch.tensor([-0.1, 0.1]))
    assert sparse.eps == 0


def test_scales_behind_linear_layers_and_sequences_count_too():
    module = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2), nn.BatchNorm1d(2, affine=False))
    assert [id(scale) for scale in bn_scales(module)] == [id(module[1].weight)]


def test_sparsity_training_shrinks_scales_and_the_smallest_go(context):
    module = build_architecture("vgg16-bn", classes=10, input=CIFAR)
    with torch.no_grad():
        for scale in bn_scales(module):
            scale[::2] = 0.01
    small = dataclasses.replace(context, train=context.train.sample(20, 0), validation=context.train.sample(10, 1))
    STEPS.build("prune.slimming:strength=0.01,sparse_epochs=1,ratio=0.5,lr=0.001")(module, small)
    assert [len(scale) for scale in bn_scales(module)] == [32, 32, 64, 64, 128, 128, 128, *(256,) * 6]
    assert all(scale.min() > 0.5 for scale in bn_scales(module))
    assert any("sparsity training epoch 1/" in note for note in context.progress.notes)


def test_a_network_without_batchnorm_is_refused(context):
    module = build_architecture("digits-cnn", classes=10, input=CIFAR)
    with pytest.raises(ModelError, match=r"prune with prune\.depgraph"):
        STEPS.build("prune.slimming:sparse_epochs=0")(module, context)


def test_an_objective_that_replays_batches_is_refused():
    with pytest.raises(OptionError, match="cannot replay it; take pgd-at"):
        STEPS.build("prune.slimming:objective=free-at")
    assert STEPS.build("prune.slimming:objective=free-at,sparse_epochs=0,epochs=1")


def test_negative_strength_is_refused():
    with pytest.raises(OptionError, match="strength and sparse_epochs are 0 or more"):
        STEPS.build("prune.slimming:strength=-1")
