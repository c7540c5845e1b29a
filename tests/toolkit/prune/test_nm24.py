"""2:4 zeros: where they are, that they stay, and that they are code 0 in the engine's file."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn

from rctk.compress import STEPS
from rctk.exporting.export import ExportSettings, quantize
from rctk.progress import Silent
from rctk.prune.finetune import finetune
from rctk.prune.zeros import fits_two_of_four, hold_zeros, prunable, two_of_four
from rctk.train.standard import Standard
from rctk_export.capture import capture
from rctk_export.input_spec import InputSpec
from rctk_export.onnx_module import OnnxModule
from rctk_kernels.errors import ModelError, OptionError

SPEC = InputSpec(channels=3, height=8, width=8)


@pytest.fixture
def small():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.Conv2d(8, 16, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 4),
        ).eval()


@pytest.fixture
def tiny(context):
    rng = np.random.default_rng(0)
    rows = dataclasses.replace(
        context.train.take(np.arange(64)), images=rng.random((64, 3, 8, 8), dtype=np.float32), labels=np.arange(64) % 4
    )
    return dataclasses.replace(context, train=rows, validation=rows, input=SPEC)


@given(st.integers(0, 2**31), st.sampled_from([(5, 4), (3, 8, 3, 3), (2, 12, 1, 1)]))
def test_exactly_two_of_four_are_kept_and_they_are_the_largest(seed, shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    keep = two_of_four(weight)
    fours = keep.movedim(1, -1).unflatten(-1, (-1, 4))
    assert (fours.sum(dim=-1) == 2).all()
    sizes = weight.abs().movedim(1, -1).unflatten(-1, (-1, 4))
    assert (sizes.where(fours, torch.inf).amin(dim=-1) >= sizes.where(~fours, -torch.inf).amax(dim=-1)).all()
    assert fits_two_of_four(weight * keep)


def test_equal_weights_keep_the_first():
    assert two_of_four(torch.ones(1, 4)).tolist() == [[True, True, False, False]]


def test_stem_and_depthwise_layers_stay_dense(small, tiny):
    assert [name for name, _ in prunable(small)] == ["4", "8"]
    STEPS.build("prune.nm24")(small, tiny)
    assert [fits_two_of_four(small[index].weight) for index in (0, 3, 4, 8)] == [False, False, True, True]
    assert int(small[4].weight.count_nonzero()) == small[4].weight.numel() // 2


def test_layers_can_be_skipped(small, tiny):
    STEPS.build("prune.nm24:skip=8")(small, tiny)
    assert not fits_two_of_four(small[8].weight)
    with pytest.raises(OptionError, match="unknown 2:4 layer"):
        STEPS.build("prune.nm24:skip=0")(small, tiny)


def test_a_network_without_fours_is_refused(tiny):
    with pytest.raises(ModelError, match="a multiple of 4 input channels"):
        STEPS.build("prune.nm24")(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)), tiny)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_zeros_stay_through_any_optimizer(optimizer, small, tiny):
    STEPS.build("prune.nm24")(small, tiny)
    zero = small[4].weight.detach() == 0
    before = small[4].weight.detach().clone()
    make = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[optimizer]
    settings = {"lr": 0.1, "weight_decay": 0.01} | ({"momentum": 0.9} if optimizer == "sgd" else {})
    steps = make(small.parameters(), **settings)
    x, y = torch.from_numpy(tiny.train.images), torch.from_numpy(tiny.train.labels)
    for _ in range(3):
        steps.zero_grad()
        nn.functional.cross_entropy(small(x), y).backward()
        steps.step()
    assert (small[4].weight[zero] == 0).all()
    assert not torch.equal(small[4].weight, before)


def test_zeros_survive_training_and_are_code_0_in_every_int8_file(small, tiny):
    STEPS.build("prune.nm24")(small, tiny)
    finetune(small, tiny, Standard(), epochs=1, lr=0.05, stage="fine-tune")
    assert fits_two_of_four(small[4].weight)
    made = quantize(capture(small.eval(), SPEC), tiny.train, ExportSettings(), Silent())
    assert {each.target for each in made} == {"cpu", "tensorrt", "cpu-mirror"}
    for each in made:
        codes = weight_codes(each.model)
        for weight in (small[4].weight, small[8].weight):
            (found,) = [value for value in codes if value.shape == tuple(weight.shape)]
            assert fits_two_of_four(torch.from_numpy(found.astype(np.int32)))
            assert (found[weight.detach().numpy() == 0] == 0).all()


def weight_codes(model):
    """Return the int8 arrays that DequantizeLinear turns into weights, or the codes of quantized float weights."""
    constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    codes = [
        constants[node.input[0]]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        and node.input[0] in constants
        and constants[node.input[0]].dtype == np.int8
    ]
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in constants:
            weight, scale = constants[node.input[0]], constants[node.input[1]]
            shape = (-1, *[1] * (weight.ndim - 1)) if scale.ndim else ()
            codes.append(np.rint(weight / scale.reshape(shape)))
    return codes


def test_zeros_of_a_captured_graph_can_be_held_too(small, tiny):
    STEPS.build("prune.nm24")(small, tiny)
    module = OnnxModule(capture(small.eval(), SPEC))
    assert len(hold_zeros(module)) == 2
    steps = torch.optim.SGD([each for each in module.parameters() if each.requires_grad], lr=0.1, momentum=0.9)
    zero = {name: each.detach() == 0 for name, each in module.named_parameters() if fits_two_of_four(each)}
    x, y = torch.from_numpy(tiny.train.images), torch.from_numpy(tiny.train.labels)
    for _ in range(2):
        steps.zero_grad()
        nn.functional.cross_entropy(module(x), y).backward()
        steps.step()
    held = dict(module.named_parameters())
    assert all((held[name][mask] == 0).all() for name, mask in zero.items())
