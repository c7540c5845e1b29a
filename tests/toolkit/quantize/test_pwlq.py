"""Two grids for the weights of a layer: exact in int8 codes, as good as their number of levels allows."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from rctk.compress.step import Context, Draft
from rctk.data.split import Split
from rctk.exporting.files import int8_files
from rctk.progress import Silent
from rctk.quantize.layers import weight_layers
from rctk.quantize.pwlq import Pwlq, two_grids
from rctk_export.capture import capture
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import OptionError

SPEC = InputSpec(channels=3, height=8, width=8)
HEAVY = np.random.default_rng(0).standard_t(3, (16, 400))


@pytest.fixture(scope="module")
def context():
    rng = np.random.default_rng(2)
    images = rng.random((32, *SPEC.shape), dtype=np.float32)
    split = Split(name="noise:train", images=images, labels=np.arange(32) % 5)
    return Context(train=split, validation=split.take(np.arange(8)), input=SPEC)


@pytest.fixture(scope="module")
def float_draft():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)
        )
    with torch.no_grad():
        for layer in (net[0], net[2], net[5]):
            layer.weight.pow_(3)  # heavy tails
        net[5].weight[:, ::2] = 0
    return Draft(model=capture(net.eval(), SPEC), input=SPEC)


def uniform_error(weights, levels):
    """Squared error of rounding rows to ``2 levels + 1`` even values that reach the largest magnitude."""
    step = np.abs(weights).max(axis=1, keepdims=True) / levels
    return np.square(np.rint(weights / step) * step - weights).sum(axis=1)


def test_two_grids_of_known_weights():
    # 3 fine and 3 coarse steps; with a ratio of 7 the largest is 3 + 3 * 7 = 24 fine steps, and 1.7 of them round to 2
    codes, steps, ratios = two_grids(np.array([[24, -17, 10, 3, 1.7, -1, 0, 2, 1, 1]]) * 0.5, 3)
    assert (ratios.tolist(), steps.tolist()) == ([7], [0.5])
    assert codes.tolist() == [[24, -17, 10, 3, 2, -1, 0, 2, 1, 1]]


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7])
def test_codes_are_levels_of_the_two_grids_and_fit_int8(bits):
    codes, _, ratios = two_grids(HEAVY, bits)
    count = 2 ** (bits - 1) - 1
    assert codes.dtype == np.int8
    for row, ratio in zip(codes, ratios, strict=True):
        levels = {*range(count + 1), *range(count, count * (1 + ratio) + 1, ratio)}
        assert set(np.abs(row.astype(int)).tolist()) <= levels
        assert np.abs(row).max() == max(levels) <= 127


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7])
def test_heavy_tails_are_rounded_better_than_on_as_many_even_levels(bits):
    codes, steps, _ = two_grids(HEAVY, bits)
    error = np.square(codes * steps[:, None] - HEAVY).sum(axis=1)
    even = uniform_error(HEAVY, 2 * (2 ** (bits - 1) - 1))
    assert (error <= even * (1 + 1e-5)).all()
    assert bits == 7 or error.sum() < 0.7 * even.sum()


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (np.random.Generator.standard_normal, lambda largest: math.log(0.8614 * largest + 0.6079)),
        (
            lambda rng, size: rng.laplace(scale=math.sqrt(0.5), size=size),
            lambda largest: 0.8030 * math.sqrt(largest) - 0.3167,
        ),
    ],
    ids=["gaussian", "laplace"],
)
def test_breakpoints_are_those_of_the_paper_as_near_as_whole_ratios_allow(draw, expected):
    weights = draw(np.random.default_rng(1), (4, 40_000))
    _, _, ratios = two_grids(weights, 5)
    largest = np.abs(weights).max(axis=1)
    for row, ratio in zip(largest, ratios, strict=True):  # deviations are 1, as the paper's approximation wants it
        assert row / (2 + ratio) < expected(row) < row / ratio


def test_the_breakpoint_is_noted_as_a_share_of_the_largest_weight(float_draft, context):
    draft = Pwlq(bits=7)(float_draft, context)  # its one ratio is 1, so that both grids are equally long
    assert draft.facts["quant.pwlq"] == {"bits": 7, "mean_breakpoint": 0.5}


def test_dead_rows_and_rows_of_one_value():
    codes, steps, _ = two_grids(np.array([[0.0, 0.0], [0.25, -0.25]]), 4)
    assert codes[0].tolist() == [0, 0]
    assert np.isfinite(steps).all()
    assert np.allclose(codes[1] * steps[1], [0.25, -0.25])


@pytest.mark.parametrize("per_channel", [True, False])
def test_the_file_holds_the_decided_codes(float_draft, context, per_channel):
    draft = Pwlq(bits=3)(float_draft.with_formats(per_channel=per_channel, weight_bits=4), context)
    (file,) = int8_files(draft, ("cpu",), context.train, Silent())
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in file.model.graph.initializer}
    layers = weight_layers(draft)
    assert layers
    for layer in layers:
        decided = draft.formats.weights[layer.name]
        codes = stored[f"{layer.initializer}.codes"]
        assert decided.scales.ndim == int(per_channel)
        assert draft.formats.of_layer(layer.name) == 8  # whatever the width of other layers
        assert np.abs(codes).max() > 7
        assert np.array_equal(codes[tuple(map(slice, decided.codes.shape))], decided.codes)
        assert (decided.codes[layer.weight == 0] == 0).all()


def test_a_layer_with_a_width_of_its_own_keeps_it(float_draft, context):
    first, *others = (layer.name for layer in weight_layers(float_draft))
    formats = Pwlq()(float_draft.with_formats(layer_bits={first: 5}), context).formats
    assert formats.of_layer(first) == 5
    assert list(formats.weights) == others


@pytest.mark.parametrize("bits", [1, 8])
def test_a_width_without_two_grids_is_refused(bits):
    with pytest.raises(OptionError, match="2 to 7 bits"):
        Pwlq(bits=bits)
