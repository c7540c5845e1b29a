"""Steps behind each other: train, prune, train, make sparse, train, quantize."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from rctk.checkpoint import LoadedModel
from rctk.compress.apply import apply_graph_steps, apply_recipe
from rctk.compress.images import hold_out
from rctk.compress.recipe import Recipe
from rctk.compress.step import Context, Draft
from rctk.data import read_split
from rctk.exporting.files import int8_files
from rctk.exporting.float_model import captured
from rctk.models import build_architecture
from rctk.progress import Silent
from rctk.prune.zeros import fits_two_of_four
from rctk.train import draw_weights
from rctk_export.input_spec import InputSpec

SPEC = InputSpec(channels=1, height=8, width=8, mean=(0.3,), std=(0.4,))
RECIPE = Recipe.of(
    [
        "train.finetune:epochs=12,lr=0.1,batch_size=32",
        "prune.depgraph:ratio=0.3,round_to=4",
        "train.finetune:epochs=4,lr=0.05,batch_size=32",
        "prune.nm24",
        "train.finetune:epochs=4,lr=0.05,batch_size=32",
        "quant.equalize",
        "quant.bias_correction:samples=64",
    ]
)


@pytest.fixture(scope="module")
def images():
    return hold_out(read_split("digits:train").sample(800, 0), seed=0)


@pytest.fixture(scope="module")
def context(images):
    return Context(train=images.train, validation=images.validation, input=SPEC, progress=Silent())


@pytest.fixture(scope="module")
def small(context):
    module = build_architecture("resnet20-b:depth=8", classes=10, input=SPEC)
    draw_weights(module, torch.Generator().manual_seed(0))
    names = tuple("0123456789")
    fields = {"arch": "resnet20-b:depth=8", "input": SPEC, "classes": names, "source": "net.pt"}
    return apply_recipe(LoadedModel(module=module.eval(), sha256="", form="checkpoint", **fields), RECIPE, context)


def sparse(tensors):
    """Those with two zeros in every four input channels, apart from the colour stem."""
    return [bool(fits_two_of_four(tensor)) for tensor in tensors if tensor.ndim > 1 and tensor.shape[1] > 1]


def test_zeros_outlive_the_steps_behind_them_though_checkpoints_lie_between(small):
    found = sparse(small.module.state_dict().values())
    assert len(found) > 8
    assert all(found)


def test_what_was_pruned_stays_pruned(small):
    assert small.arch == "pruned:resnet20-b:depth=8"
    assert small.module.layer3[0].conv1.out_channels < 64


def test_zeros_are_codes_of_zero_in_the_int8_file(small, context):
    source = captured(small)
    draft = apply_graph_steps(Draft(model=source.model, input=SPEC), RECIPE, context)
    (file,) = int8_files(draft, ["cpu"], context.train.sample(128, 0), Silent())
    codes = [numpy_helper.to_array(t) for t in file.model.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    found = sparse(torch.from_numpy(code.astype(np.float32)) for code in codes)
    assert len(found) > 8
    assert all(found)


def test_the_result_knows_its_digits(small):
    test = read_split("digits:test").sample(200, 0)
    with torch.no_grad():
        logits = small.module((torch.from_numpy(test.images) - 0.3) / 0.4)
    assert (logits.argmax(1).numpy() == test.labels).mean() > 0.85


def test_a_tenth_is_held_out_in_proportion(images):
    assert (len(images.train), len(images.validation)) == (720, 80)
    assert not set(images.train.indices) & set(images.validation.indices)
    assert np.bincount(images.validation.labels, minlength=10).min() >= 7
