"""Widths below 8 bits, learned grids and decided codes arrive in the file exactly."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rctk_export.capture import capture
from rctk_export.graph import Graph
from rctk_export.input_spec import InputSpec
from rctk_export.lint import lint
from rctk_export.onnx_module import OnnxModule
from rctk_export.quantize import PLANNERS
from rctk_export.quantize.formats import Formats, Steps, Weight
from rctk_export.quantize.grid import given_grid, signed_grid, unsigned_grid, weight_codes, weight_scales
from rctk_export.quantize.plan_mirror import mirror
from rctk_export.quantize.write import write_qdq
from rctk_export.reference.program import Program
from rctk_kernels.errors import OptionError, QuantizationError

SPEC = InputSpec(channels=3, height=8, width=8)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.conv = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.fc = nn.Linear(16 * 16, 5)

    def forward(self, x):
        x = F.relu6(self.stem(x))
        x = F.max_pool2d(F.relu(self.conv(x) + x), 2)
        return self.fc(x.flatten(1))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return capture(Net().eval(), SPEC)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((8, *SPEC.shape), dtype=np.float32)


def written(model, images, target, formats):
    plan = PLANNERS.build(target).plan(Graph(onnx.ModelProto.FromString(model.SerializeToString())))
    with torch.no_grad():
        seen = OnnxModule(model).observe(torch.from_numpy(images), plan.calibrated())
    ranges = {name: (float(value.min()), float(value.max())) for name, value in seen.items()}
    file = write_qdq(model, plan, ranges, formats)
    onnx.checker.check_model(file, full_check=True)
    return file


def activation_codes(file, images):
    constants = {t.name for t in file.graph.initializer}
    names = [n.output[0] for n in file.graph.node if n.op_type == "QuantizeLinear" and n.input[0] not in constants]
    return {
        name: value.detach().numpy()
        for name, value in OnnxModule(file).observe(torch.from_numpy(images), names).items()
    }


def constant(file, name):
    (found,) = (onnx.numpy_helper.to_array(t) for t in file.graph.initializer if t.name == name)
    return found


@pytest.mark.parametrize("target", ["cpu", "tensorrt", "cpu-mirror"])
@pytest.mark.parametrize("bits", [2, 3, 4, 7])
def test_codes_below_8_bits_are_held_by_a_clip_and_the_linter_knows_it(model, images, target, bits):
    formats = Formats(weight_bits=bits, activation_bits=bits, tensor_bits={"images": 8})
    file = written(model, images, target, formats)
    file = mirror(file) if target == "cpu-mirror" else file
    assert [f for f in lint(file, target) if f.severity == "error"] == []
    for name, codes in activation_codes(file, images).items():
        assert len(np.unique(codes)) <= (256 if name.startswith("images") else 2**bits), name
    output = file.graph.output[0].name
    reference = Program(file).run({"images": images}, [output])[output]
    exact = OnnxModule(file, mode="exact")(torch.from_numpy(images)).detach().numpy()
    assert np.array_equal(reference.argmax(1), exact.argmax(1))
    assert np.allclose(reference, exact, atol=1e-6)


def test_the_linter_says_that_narrow_codes_are_slow(model, images):
    file = written(model, images, "cpu", Formats(activation_bits=4))
    assert {f.rule for f in lint(file, "cpu")} == {"narrow-codes"}


def test_8_bits_need_no_clip(model, images):
    assert all(n.op_type != "Clip" for n in written(model, images, "cpu", Formats()).graph.node)


def test_images_outside_the_grid_saturate_at_its_ends(model, images):
    file = written(model, images, "cpu", Formats(activation_bits=3))
    for codes in activation_codes(file, images * 100 - 50).values():
        assert codes.max() <= 7


@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
def test_given_codes_and_scales_are_stored_exactly(model, images, target):
    rng = np.random.default_rng(1)
    codes = rng.integers(-4, 4, (16, 3, 3, 3)).astype(np.int8)
    scales = rng.uniform(0.01, 0.1, 16).astype(np.float32)
    file = written(model, images, target, Formats(weights={"stem": Weight(scales=scales, codes=codes)}))
    name = "stem.weight.codes" if target == "cpu" else "stem.weight.q"
    found = OnnxModule(file).observe(torch.from_numpy(images[:1]), [name])[name].detach().numpy()
    assert np.array_equal(found[:, :3], codes)
    assert not found[:, 3:].any()  # the zero channel that makes the first layer fast
    assert np.array_equal(constant(file, "stem.weight.scale"), scales)


def test_a_learned_grid_is_stored_exactly(model, images):
    steps = {"images": Steps(scale=0.0123, low=-3, high=60)}
    file = written(model, images, "tensorrt", Formats(steps=steps))
    assert constant(file, "images.scale") == np.float32(0.0123)
    bounds = constant(file, "images.low") / np.float32(0.0123), constant(file, "images.high") / np.float32(0.0123)
    assert np.rint(bounds).tolist() == [-3, 60]


def test_a_grid_that_int8_cannot_hold_is_refused_by_name(model, images):
    with pytest.raises(QuantizationError, match=r"'images', 0\.\.255, does not fit int8.*--target cpu"):
        written(model, images, "tensorrt", Formats(steps={"images": Steps(scale=1 / 255, low=0, high=255)}))


@pytest.mark.parametrize("target", ["cpu", "tensorrt", "cpu-mirror"])
def test_weights_with_one_scale_per_tensor(model, images, target):
    file = written(model, images, target, Formats(per_channel=False))
    moved = mirror(file) if target == "cpu-mirror" else file
    assert constant(moved, "stem.weight.scale").shape == ()
    assert [f for f in lint(moved, target) if f.severity == "error"] == []
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    run = [
        ort.InferenceSession(f.SerializeToString(), options, providers=["CPUExecutionProvider"]) for f in (file, moved)
    ]
    logits = [session.run(None, {"images": images})[0] for session in run]
    assert np.array_equal(*logits)


def test_grids_of_few_bits_by_hand():
    assert unsigned_grid(-1.0, 2.0, bits=2).zero == 1
    assert unsigned_grid(0.0, 3.0, bits=2).scale == 1.0
    assert signed_grid(0.0, 3.0, bits=2).high == 3
    assert signed_grid(-1.0, 1.0, bits=2).bounds == (-2.0, 1.0)
    assert unsigned_grid(0.0, 1.0).bounds is None
    assert given_grid(Steps(scale=0.5, low=-2, high=5), signed=False).zero == 2
    weight = np.array([[3.0, -1.6, 0.4], [0.0, 6.0, -6.0]])
    assert weight_codes(weight, weight_scales(weight, bits=3), bits=3).tolist() == [[3, -2, 0], [0, 3, -3]]
    assert weight_scales(weight, bits=3, per_channel=False) == 2.0


def test_a_bias_that_given_codes_cannot_hold_is_refused(model, images):
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    graph = Graph(copy)
    (stem,) = (node for node in graph.nodes if node.name == "stem")
    graph.rewrite_constant(stem, 2, np.full(16, 1e9, np.float32))
    huge = graph.finish()
    codes = Weight(scales=np.full(16, 1e-6, np.float32), codes=np.ones((16, 3, 3, 3), np.int8))
    with pytest.raises(QuantizationError, match="bias of channel 0 does not fit int32"):
        written(huge, images, "cpu", Formats(weights={"stem": codes}))


@pytest.mark.parametrize("bits", [1, 9])
def test_widths_outside_2_to_8_are_refused(bits):
    with pytest.raises(OptionError, match="2 to 8 bits"):
        Formats(layer_bits={"stem": bits})


@pytest.mark.parametrize(("scale", "low", "high"), [(0, 0, 1), (1, 1, 2), (1, 0, 256), (1, 0, 0), (float("nan"), 0, 3)])
def test_grids_that_make_no_sense_are_refused(scale, low, high):
    with pytest.raises(QuantizationError):
        Steps(scale=scale, low=low, high=high)
