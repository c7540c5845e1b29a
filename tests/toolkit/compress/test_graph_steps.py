"""What every graph step owes: its input is left alone, equal seeds give equal drafts, and the draft can be exported."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from rctk.compress import STEPS
from rctk.compress.apply import apply_graph_steps
from rctk.compress.recipe import Recipe
from rctk.compress.step import Context, Draft
from rctk.data.split import Split
from rctk.exporting.files import int8_files
from rctk.progress import Silent
from rctk_export.capture import capture
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import OptionError

SPEC = InputSpec(channels=1, height=8, width=8, mean=(0.4,), std=(0.3,))
SMALL = {
    "quant.adaround": "iterations=20,places=32,samples=16",
    "quant.seqmse": "samples=16,candidates=4",
    "quant.bias_correction": "samples=16",
    "quant.absorb_bias": "samples=16",
    "quant.mixed": "max_drop=0.99,samples=8",
    "quant.layer_bits": "layer=point,weight_bits=4",
}
"""Settings that make a step quick."""
GRAPH_STEPS = [name for name in STEPS.names() if STEPS.load(name).kind == "graph"]


class Net(nn.Module):
    """Convolution, depthwise convolution, pointwise convolution without padding, skip, linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.wise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.point = nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(8 * 16, 10)

    def forward(self, x):
        x = self.stem(x).relu()
        x = (self.point(self.wise(x).relu()) + x).relu()
        return self.fc(nn.functional.max_pool2d(x, 2).flatten(1))


@pytest.fixture(scope="module")
def draft():
    torch.manual_seed(0)
    return Draft(model=capture(Net().eval(), SPEC), input=SPEC)


@pytest.fixture(scope="module")
def context():
    rng = np.random.default_rng(0)
    images = rng.random((40, *SPEC.shape), dtype=np.float32)
    split = Split(name="noise:train", images=images, labels=np.arange(40) % 10)
    return Context(train=split, validation=split.take(np.arange(8)), input=SPEC, seed=3)


def built(name):
    return STEPS.build(f"{name}:{SMALL[name]}" if name in SMALL else name)


def state(draft):
    codes = {
        name: (weight.scales.tobytes(), None if weight.codes is None else weight.codes.tobytes())
        for name, weight in draft.formats.weights.items()
    }
    rest = (draft.form, draft.formats.facts(), draft.ranges, draft.keep_float, dict(draft.facts))
    return draft.model.SerializeToString(deterministic=True), codes, rest


@pytest.mark.parametrize("name", GRAPH_STEPS)
def test_a_step_leaves_its_draft_alone_and_repeats(name, draft, context):
    before = state(draft)
    first, second = built(name)(draft, context), built(name)(draft, context)
    assert state(draft) == before
    assert state(first) == state(second)
    assert name in first.facts


@pytest.mark.parametrize("name", GRAPH_STEPS)
def test_the_files_of_every_step_are_clean_and_name_it(name, draft, context):
    step = built(name)
    done = step(draft, context)
    one = getattr(step, "target", "cpu")  # quantization-aware steps train for one target
    targets = ("cpu", "tensorrt") if done.form == "static" and not hasattr(step, "target") else (one,)
    for item in int8_files(done, targets, context.train, Silent()):
        onnx.checker.check_model(item.model, full_check=True)
        assert name in item.facts["steps"]


def test_the_usual_pipeline_runs_in_one_go(draft, context):
    for text in ("quant.ptq_static8:weight_bits=4,calibrator=mse", "quant.equalize", "quant.seqmse:samples=16"):
        draft = STEPS.build(text)(draft, context)
    for name in ("quant.adaround", "quant.bias_correction"):
        draft = built(name)(draft, context)
    for item in int8_files(draft, ("cpu", "tensorrt"), context.train, Silent()):
        codes = {t.name: onnx.numpy_helper.to_array(t) for t in item.model.graph.initializer}
        if item.target == "cpu":
            assert np.abs(codes["point.weight.codes"]).max() <= 7
            assert np.abs(codes["stem.weight.codes"]).max() > 7  # an edge layer keeps 8 bits


@pytest.mark.parametrize(
    ("edges", "kept", "bits"), [("int8", (), 8), ("same", (), 3), ("float", ("stem", "fc"), 3)], ids=str
)
def test_edge_layers(draft, context, edges, kept, bits):
    done = STEPS.build(f"quant.ptq_static8:weight_bits=3,activation_bits=3,edge_layers={edges}")(draft, context)
    assert done.keep_float == kept
    assert done.formats.of_layer("stem") == bits
    assert done.formats.of_layer("point") == 3


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("quant.seqmse", "quant.equalize", "quant.seqmse has fixed their codes or scales already"),
        ("quant.mixed", "quant.ptq_static8", "that quant.mixed has chosen already"),
        ("quant.weight_only", "quant.ptq_dynamic8", "that quant.weight_only has chosen already"),
        ("quant.layer_bits", "quant.lsq", "leave out quant.layer_bits"),
        ("quant.bias_correction", "quant.adaround", "put quant.adaround in front of it"),
    ],
)
def test_steps_respect_what_stands_in_a_draft(first, second, words, draft, context):
    begun = apply_graph_steps(draft, Recipe.of([{first: SMALL.get(first)}]), context)
    with pytest.raises(OptionError, match=words):
        apply_graph_steps(begun, Recipe.of([{second: SMALL.get(second)}]), context)


def test_unknown_layers_are_named(draft, context):
    wrong = draft.with_formats(layer_bits={"stm": 4})
    with pytest.raises(OptionError, match="did you mean 'stem'"):
        int8_files(wrong, ("cpu",), context.train, Silent())


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("ptq_static8", ""),
        ("lsq:epochs=1", ""),
        ("ptq_static8:weight_bits=4", "size and time are those of int8"),
        ("ptq_static8:activation_bits=4", "accuracy, not speed"),
        ("lsq:activations=4,epochs=1", "accuracy, not speed"),
    ],
)
def test_a_file_of_few_bits_does_not_promise_speed(draft, context, heard, step, words):
    int8_files(STEPS.build(f"quant.{step}")(draft, context), ("cpu",), context.train, heard)
    notes = [note for note in heard.notes if "fewer than 8 bits" in note]
    assert len(notes) == bool(words)
    assert all(words in note for note in notes)


@pytest.mark.parametrize(("step", "told"), [("pact:weights=4", True), ("xnor", True), ("lsq:weights=4", False)])
def test_a_step_without_a_code_for_zero_says_so(draft, context, heard, step, told):
    sparse = Draft(model=onnx.ModelProto.FromString(draft.model.SerializeToString()), input=draft.input)
    for tensor in sparse.model.graph.initializer:
        weight = onnx.numpy_helper.to_array(tensor).copy()
        if weight.ndim > 1:
            weight.reshape(-1)[::2] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(weight, tensor.name))
    STEPS.build(f"quant.{step}{',' if ':' in step else ':'}edge_layers=same,epochs=1")(
        sparse, replace(context, progress=heard)
    )
    assert any("has no code for zero" in note for note in heard.notes) == told
