"""Dynamic and weight-only files: what they store, what runs on integers, and that the twin follows them."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from rctk.compress.step import Context, Draft
from rctk.data.split import Split
from rctk.exporting.export import ExportSettings, export_draft
from rctk.exporting.files import int8_files, what_runs
from rctk.exporting.float_model import FloatModel
from rctk.inspection import describe
from rctk.progress import Silent
from rctk.quantize.adaround import AdaRound
from rctk.quantize.dynamic8 import PtqDynamic8
from rctk.quantize.weight_only import WeightOnly
from rctk_export.capture import capture
from rctk_export.input_spec import InputSpec
from rctk_export.onnx_module import OnnxModule
from rctk_export.reference.program import Program
from rctk_export.reference.values import plain
from rctk_kernels.errors import OptionError

SPEC = InputSpec(channels=1, height=8, width=8)


@pytest.fixture(scope="module")
def draft():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10)
    )
    return Draft(model=capture(module.eval(), SPEC), input=SPEC)


@pytest.fixture(scope="module")
def context():
    images = np.random.default_rng(0).random((96, *SPEC.shape), dtype=np.float32)
    split = Split(name="noise:train", images=images, labels=np.arange(96) % 10)
    return Context(train=split, validation=split, input=SPEC)


def logits(model, images, *, optimise=True):
    options, levels = ort.SessionOptions(), ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


@pytest.mark.parametrize(
    "step", [PtqDynamic8(), PtqDynamic8(layers="all"), WeightOnly(bits=4), WeightOnly(bits=8)], ids=repr
)
def test_the_file_is_near_float_and_the_twin_follows_it(draft, context, step):
    (item,) = int8_files(step(draft, context), ("cpu",), context.train, Silent())
    images = context.train.images[:16]
    made, exact = logits(item.model, images), logits(draft.model, images)
    with torch.no_grad():
        twin = OnnxModule(item.model)(torch.from_numpy(images)).numpy()
    assert twin == pytest.approx(made, abs=2e-3)
    assert made == pytest.approx(exact, abs=0.05)
    assert not np.array_equal(made, exact)


def test_dynamic_files_quantize_what_was_asked_for(draft, context):
    (linear,) = int8_files(PtqDynamic8()(draft, context), ("cpu",), context.train, Silent())
    (everything,) = int8_files(PtqDynamic8(layers="all")(draft, context), ("cpu",), context.train, Silent())
    assert "Conv" in {node.op_type for node in linear.model.graph.node}
    assert "ConvInteger" in {node.op_type for node in everything.model.graph.node}
    assert linear.facts["form"] == "dynamic"
    assert linear.facts["int8_layers"] == ["3", "5"]
    assert [kept["name"] for kept in linear.facts["kept_float"]] == ["0"]


def test_dynamic_files_name_the_layers_that_run_on_integers(draft, context):
    (made,) = int8_files(PtqDynamic8(layers="all")(draft, context), ("cpu",), context.train, Silent())
    assert made.facts["integer_kernels"] == made.facts["int8_layers"] == ["0", "3", "5"]
    assert "on every call" not in made.facts["speed"]


def test_four_bit_weights_take_half_a_byte(draft, context):
    (item,) = int8_files(WeightOnly(bits=4)(draft, context), ("cpu",), context.train, Silent())
    stored = {t.name: t for t in item.model.graph.initializer}
    codes = stored["3.weight.codes"]
    assert codes.data_type == onnx.TensorProto.INT4
    assert len(codes.raw_data) == 256 * 32 / 2
    assert np.abs(onnx.numpy_helper.to_array(codes).astype(np.int8)).max() == 7
    assert item.facts["form"] == "weight-only"


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_every_linear_layer_is_read_as_integers_also_with_a_bias_and_a_relu_behind_it(draft, context, bits):
    told = Silent()
    (item,) = int8_files(WeightOnly(bits=bits)(draft, context), ("cpu",), context.train, told)
    assert item.facts["integer_kernels"] == ["3", "5"]
    assert told.notes == [item.facts["speed"]]
    assert "slower" not in told.notes[0]
    assert ("no time over 4 bits" in told.notes[0]) == (bits == 2)


def test_layers_that_would_be_dequantized_on_every_call_are_named(draft):
    assert "3: dequantized on every call" in what_runs(replace(draft, form="weight-only"), ["3", "5"], ["5"])


def test_inspect_knows_the_width_and_finds_nothing_half_done(draft, context, tmp_path):
    (item,) = int8_files(WeightOnly(bits=2)(draft, context), ("cpu",), context.train, Silent())
    (tmp_path / "alone.onnx").write_bytes(item.model.SerializeToString())
    (row,) = describe(tmp_path / "alone.onnx").files
    assert [layer.arithmetic for layer in row.graph.layers] == ["float", "int2 weights", "int2 weights"]
    assert "half-quantized" not in {finding.rule for finding in row.graph.findings}


@pytest.fixture(scope="module")
def classifier():
    """Capture a linear classifier of so many classes, once."""

    @functools.cache
    def of(outputs):
        torch.manual_seed(1)
        return Draft(model=capture(nn.Sequential(nn.Flatten(), nn.Linear(64, outputs)).eval(), SPEC), input=SPEC)

    return of


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("outputs", [3, 4, 10])
def test_codes_are_read_as_they_were_written_whatever_the_outputs(classifier, context, outputs, bits):
    (item,) = int8_files(WeightOnly(bits=bits)(classifier(outputs), context), ("cpu",), context.train, Silent())
    images = context.train.images[:16]
    exact = plain(Program(item.model).run({"images": images.astype(np.float64)}, ["logits"])["logits"])
    with torch.no_grad():
        twin = OnnxModule(item.model)(torch.from_numpy(images)).numpy()
    assert exact.shape == (16, outputs)
    assert twin == pytest.approx(exact, abs=1e-5)
    assert logits(item.model, images, optimise=False) == pytest.approx(exact, abs=1e-5)
    assert logits(item.model, images) == pytest.approx(exact, abs=6e-3)  # it rounds inputs to int8, 32 at a time


def test_two_bit_weights_take_a_quarter_of_a_byte_and_are_three_values(draft, context):
    (item,) = int8_files(WeightOnly(bits=2)(draft, context), ("cpu",), context.train, Silent())
    codes = next(t for t in item.model.graph.initializer if t.name == "3.weight.codes")
    assert codes.data_type == onnx.TensorProto.INT2
    assert set(np.unique(onnx.numpy_helper.to_array(codes).astype(np.int8))) == {-1, 0, 1}
    assert len(codes.raw_data) == 256 * 32 / 4


def test_rounding_that_is_learned_behind_the_step_knows_the_width_and_leaves_convolutions(draft, context):
    nearest = WeightOnly(bits=2)(draft, context)
    learned = AdaRound(iterations=200)(nearest, context)
    assert sorted(learned.formats.weights) == ["3", "5"]
    images = context.train.images[:32]
    exact = logits(draft.model, images)
    misses = []
    for each in (nearest, learned):
        (item,) = int8_files(each, ("cpu",), context.train, Silent())
        misses.append(np.square(logits(item.model, images) - exact).mean())
    assert misses[1] < 0.3 * misses[0]


def test_a_bundle_of_another_form_is_written_and_checked(draft, context, tmp_path):
    settings = ExportSettings(targets=("cpu",), calibration_samples=32, check_samples=32)
    source = FloatModel(model=draft.model, input=SPEC, classes=tuple("0123456789"), origin={"source": "small.pt"})
    for step in (PtqDynamic8(), WeightOnly()):
        out = tmp_path / step.__class__.__name__
        bundle = export_draft(step(draft, context), source, context.train, out, settings)
        assert bundle.file("int8", "cpu").facts["agreement"]["clean"] >= 0.985


def test_other_forms_are_for_cpus_only(draft, context):
    with pytest.raises(OptionError, match="pass --target cpu and no other"):
        int8_files(PtqDynamic8()(draft, context), ("cpu", "tensorrt"), context.train, Silent())


def test_widths_that_no_runtime_reads_are_refused():
    with pytest.raises(OptionError, match="8, 4 or 2 bits"):
        WeightOnly(bits=3)
