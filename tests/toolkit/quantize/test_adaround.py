"""Rounding that is learned beats rounding to nearest; the rows it is learned from are those the layer multiplies."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F

from rctk.compress import STEPS
from rctk.compress.step import Context, Draft
from rctk.data.split import Split
from rctk.exporting.files import int8_files
from rctk.progress import Silent
from rctk.prune.zeros import fits_two_of_four
from rctk.quantize.adaround import AdaRound, regulariser, soft
from rctk.quantize.layers import outputs, rounded, rows, weight_layers
from rctk.quantize.reconstruct import Walk, grouped, ungrouped
from rctk.quantize.seqmse import SeqMse
from rctk_export.capture import capture
from rctk_export.input_spec import InputSpec
from rctk_export.onnx_module import OnnxModule
from rctk_kernels.errors import DataError, OptionError

SPEC = InputSpec(channels=4, height=9, width=7)


def draft_of(module):
    return Draft(model=capture(module.eval(), SPEC), input=SPEC)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, (3, 1), stride=(2, 1), padding=(1, 0)),
        nn.Conv2d(4, 8, 3, padding=2, dilation=2, groups=2),
    ],
    ids=["strided", "dilated-grouped"],
)
def test_rows_times_weight_is_the_output_of_a_convolution(conv):
    torch.manual_seed(0)
    module = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    module(torch.rand(1, *SPEC.shape))
    layer = weight_layers(draft_of(module))[0]
    x = torch.rand(5, *SPEC.shape)
    with torch.no_grad():
        y = conv(x)
    positions = torch.randint(y.numel() // y.shape[1], (50,))
    made = torch.baddbmm(
        torch.from_numpy(layer.bias).reshape(layer.groups, 1, -1),
        rows(layer, x, positions),
        grouped(torch.from_numpy(layer.weight), layer.groups),
    )
    assert torch.allclose(made, outputs(layer, y, positions), atol=1e-5)
    assert layer.rectified
    assert np.array_equal(ungrouped(grouped(torch.from_numpy(layer.weight), layer.groups), layer), layer.weight)


@pytest.fixture(scope="module")
def context():
    rng = np.random.default_rng(0)
    images = rng.random((64, *SPEC.shape), dtype=np.float32)
    split = Split(name="noise:train", images=images, labels=np.arange(64) % 5)
    return Context(train=split, validation=split, input=SPEC)


@pytest.fixture(scope="module")
def draft():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(280, 5),
    )
    return draft_of(module).with_formats(weight_bits=3)


def error(draft, context):
    """Mean squared error of the logits with rounded weights."""
    x = torch.from_numpy(context.train.images)
    exact, module = OnnxModule(draft.model).requires_grad_(False), OnnxModule(draft.model).requires_grad_(False)
    for layer in weight_layers(draft):
        module.initializers[layer.initializer].copy_(torch.from_numpy(rounded(draft.formats, layer)))
    return float(F.mse_loss(module(x), exact(x)))


def test_learned_rounding_and_learned_scales_lower_the_error_of_the_logits(draft, context):
    nearest = error(draft, context)
    scaled = SeqMse(samples=64)(draft, context)
    learned = AdaRound(iterations=300, places=256, samples=64)(draft, context)
    both = AdaRound(iterations=300, places=256, samples=64)(scaled, context)
    assert error(scaled, context) < 0.9 * nearest
    assert error(learned, context) < 0.5 * nearest
    assert error(both, context) < 0.5 * nearest


def test_codes_differ_from_the_weight_by_less_than_one_step_and_keep_their_range(draft, context):
    done = AdaRound(iterations=60, places=64, samples=16)(draft, context)
    for layer in weight_layers(draft):
        decided = done.formats.weights[layer.name]
        steps = layer.weight / decided.scales.reshape(-1, *[1] * (layer.weight.ndim - 1))
        assert decided.codes.dtype == np.int8
        assert np.abs(decided.codes).max() <= 3
        inside = np.abs(steps) < 3
        assert np.abs(decided.codes - steps)[inside].max() < 1
        assert np.abs(decided.codes - steps)[inside].max() > 0.5  # not all of them are the nearest


def test_two_zeros_in_every_four_weights_are_codes_of_zero_in_the_int8_file(context):
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(504, 5))
    draft = draft_of(STEPS.build("prune.nm24")(dense, context)).with_formats(weight_bits=3)
    for text in (
        "seqmse:samples=16",
        "adaround:iterations=60,places=64,samples=16,learning_rate=0.1,weight=0",
        "bias_correction",
    ):
        draft = STEPS.build(f"quant.{text}")(draft, context)
    assert draft.facts["quant.adaround"]["share_not_nearest"] > 0
    (file,) = int8_files(draft, ["cpu"], context.train, Silent())
    codes = [numpy_helper.to_array(t) for t in file.model.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    weights = [torch.from_numpy(code.astype(np.float32)) for code in codes if code.ndim > 1]
    assert [weight.shape[0] for weight in weights] == [8, 5]
    assert all(fits_two_of_four(weight) for weight in weights)


def test_a_layer_reads_what_rounded_layers_make(draft, context):
    walk = Walk(draft, context.train.images, seed=0)
    seen = {}
    for target in walk.targets(Silent(), "walk"):
        seen[target.layer.name] = target
        walk.settle(target.layer, draft)
    plain = Walk(draft, context.train.images, seed=0)
    exact = {target.layer.name: target for target in plain.targets(Silent(), "walk")}
    first, second = list(seen)[:2]
    assert torch.equal(seen[first].inputs, exact[first].inputs)
    assert not torch.equal(seen[second].inputs, exact[second].inputs)
    assert torch.equal(seen[second].wanted, exact[second].wanted)
    made = torch.baddbmm(exact[second].bias, exact[second].inputs, exact[second].weight)
    assert torch.allclose(made, exact[second].wanted, atol=1e-4)


def test_regulariser_by_hand():
    assert regulariser(torch.tensor([0.0, 1.0]), 0.0) == 0
    assert regulariser(torch.tensor([0.5]), 0.3) == 1
    assert regulariser(torch.tensor([0.75]), 1.0) == pytest.approx(1 - 0.5**2)
    assert regulariser(torch.tensor([0.75]), 0.0) == pytest.approx(1 - 0.5**20)
    assert soft(torch.tensor([2.5])) == 1


@pytest.mark.parametrize("wrong", [{"iterations": 0}, {"learning_rate": 0}, {"weight": -1}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(OptionError, match=r"quant\.adaround"):
        AdaRound(**wrong)


@pytest.mark.parametrize("wrong", [{"candidates": 1}, {"least": 1.0}, {"samples": 0}])
def test_scales_need_candidates(wrong):
    with pytest.raises(OptionError, match=r"quant\.seqmse"):
        SeqMse(**wrong)


def test_without_training_images_there_is_nothing_to_learn_from(draft, context):
    empty = Context(train=context.train.take(np.arange(0)), validation=context.train, input=SPEC)
    with pytest.raises(DataError, match="holds no image"):
        AdaRound()(draft, empty)
