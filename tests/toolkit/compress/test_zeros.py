"""Zeros on the way from pruning through training and quantization to the codes of the file, for every graph step."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from onnx import numpy_helper

from rctk.checkpoint import LoadedModel
from rctk.compress import STEPS
from rctk.compress.apply import apply_recipe
from rctk.compress.recipe import Recipe
from rctk.compress.step import Context, Draft
from rctk.data import read_split
from rctk.exporting.files import int8_files
from rctk.models import build_architecture
from rctk.progress import Silent
from rctk.prune.zeros import fits_two_of_four
from rctk.train import draw_weights
from rctk_export.capture import capture
from rctk_export.graph import Graph
from rctk_export.input_spec import InputSpec

ARCH = "resnet20-b:depth=8"
SPEC = InputSpec(channels=1, height=8, width=8, mean=(0.3,), std=(0.4,))
SETTINGS = {
    "quant.adaround": "iterations=30,samples=32",
    "quant.layer_bits": "layer=conv1,weight_bits=7",
    "quant.ptq_dynamic8": "layers=all",
    "quant.seqmse": "samples=32",
}
NO_ZERO_CODE = {"quant.bnn", "quant.binaryconnect", "quant.dorefa", "quant.xnor"}
"""Their grids have no code for 0: two values, or an even number of them around 0."""
GRAPH_STEPS = [
    name for name in STEPS.names() if STEPS.load(name).kind == "graph" and name not in {*NO_ZERO_CODE, "quant.mixed"}
]
BY_HAND = "layer2.0.conv2.weight"


def step_of(name):
    """Build a step that is short."""
    if "epochs" in {field.name for field in dataclasses.fields(STEPS.load(name))}:
        return STEPS.build(f"{name}:epochs=1,batch_size=32")
    return STEPS.build(f"{name}:{SETTINGS[name]}" if name in SETTINGS else name)


@pytest.fixture(scope="module")
def context():
    split = read_split("digits:train").sample(96, 0)
    return Context(train=split, validation=split.take(np.arange(0, 96, 4)), input=SPEC, progress=Silent())


@pytest.fixture(scope="module")
def pruned(context):
    """Channels removed, then single weights of one layer zeroed by hand, then two in four, then trained."""
    module = build_architecture(ARCH, classes=10, input=SPEC)
    draw_weights(module, torch.Generator().manual_seed(0))
    fields = {"arch": ARCH, "input": SPEC, "classes": tuple("0123456789"), "source": "net.pt"}
    model = LoadedModel(module=module.eval(), sha256="", form="checkpoint", **fields)
    model = apply_recipe(model, Recipe.of(["prune.depgraph:ratio=0.3,criterion=l1,round_to=4"]), context)
    weight = model.module.get_parameter(BY_HAND)
    with torch.no_grad():
        weight *= torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    by_hand = weight == 0
    model = apply_recipe(model, Recipe.of(["prune.nm24", "train.finetune:epochs=2,batch_size=32,lr=0.05"]), context)
    return model.module, by_hand


@pytest.fixture(scope="module")
def draft(pruned):
    return Draft(model=capture(pruned[0], SPEC), input=SPEC)


def zeros_of(model):
    """Where the stored weight of each layer is zero, by name, in the layout of the float graph."""
    graph = Graph(model)
    makers = {name: node for node in graph.nodes for name in node.output}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    found = {}
    for node in graph.nodes:
        if node.op_type not in {"Conv", "Gemm", "MatMul", "ConvInteger", "MatMulInteger"}:
            continue
        source = node.input[1]
        while source in makers:  # Q/DQ, transposition
            source = makers[source].input[0]
        codes = numpy_helper.to_array(stored[source]).astype(np.float32)
        name = node.name.removesuffix("_quant")
        found[name] = codes.T == 0 if node.op_type.startswith("MatMul") else codes == 0
    return found


def test_training_keeps_zeros_of_any_pattern_and_removed_channels_stay_away(pruned):
    module, by_hand = pruned
    weight = module.get_parameter(BY_HAND)
    assert (weight[by_hand] == 0).all()
    assert by_hand.float().mean() > 0.6
    assert module.layer3[0].conv1.out_channels < 64
    assert fits_two_of_four(weight)
    assert (weight != 0).any()


@pytest.mark.parametrize(("keep", "fits"), [("true", True), ("false", False)])
def test_a_pattern_goes_only_where_it_was_asked_to_and_that_is_said(pruned, context, heard, keep, fits):
    fields = {"arch": f"pruned:{ARCH}", "input": SPEC, "classes": tuple("0123456789"), "source": "net.pt"}
    model = LoadedModel(module=pruned[0], sha256="", form="checkpoint", **fields)
    recipe = Recipe.of([f"train.finetune:epochs=1,batch_size=32,lr=0.05,keep_zeros={keep}"])
    trained = apply_recipe(model, recipe, dataclasses.replace(context, progress=heard))
    assert fits_two_of_four(trained.module.get_parameter(BY_HAND)) == fits
    assert any("took the 2:4 pattern" in note and BY_HAND in note for note in heard.notes) != fits


@pytest.mark.parametrize("name", GRAPH_STEPS)
def test_what_is_zero_in_the_float_graph_is_code_zero_in_the_file(name, draft, context):
    (file,) = int8_files(step_of(name)(draft, context), ("cpu",), context.train, Silent())
    before, after = zeros_of(draft.model), zeros_of(file.model)
    layers = {layer.name for layer in file.plan.layers} & after.keys()
    assert layers
    for layer in layers:
        assert after[layer].shape == before[layer].shape
        assert after[layer][before[layer]].all(), layer


def test_the_tensorrt_file_has_two_zeros_in_four(draft, context):
    files = int8_files(draft, ("tensorrt",), context.train, Silent())
    for file in files:
        zeros = zeros_of(file.model)
        sparse = [fits_two_of_four(torch.from_numpy(~found).float()) for found in zeros.values() if found.shape[1] > 1]
        assert len(sparse) >= 8
        assert all(sparse)
