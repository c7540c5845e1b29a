"""What the cpu target does for speed: selected codes stay as they are, and the first layer gets four channels."""

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
from rctk_export.lint import require_clean
from rctk_export.quantize import PLANNERS
from rctk_export.quantize.write import write_qdq
from rctk_export.shortcut import selects

SPEC = InputSpec(channels=3, height=8, width=8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


class OptionA(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.conv = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.fc = nn.Linear(2 * width, 4)

    def forward(self, x):
        x = F.relu(self.stem(x))
        half = x.shape[1] // 2
        x = F.relu(self.conv(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half)))
        return self.fc(x.mean(dim=(2, 3)))


class TwoReaders(OptionA):
    def forward(self, x):
        return super().forward(x) + x.mean()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((8, *SPEC.shape), dtype=np.float32)


@pytest.fixture(scope="module")
def option_a():
    return captured(OptionA())


def captured(module, spec=SPEC):
    torch.manual_seed(0)
    return capture(module.eval(), spec)


def run(model, images, names):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    present = {o.name for o in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


def quantized(model, images, target="cpu"):
    plan = PLANNERS.build(target).plan(Graph(onnx.ModelProto.FromString(model.SerializeToString())))
    values = {**run(model, images, [name for name in plan.calibrated() if name != "images"]), "images": images}
    found = {name: (float(values[name].min()), float(values[name].max())) for name in plan.calibrated()}
    written = write_qdq(model, plan, found)
    onnx.checker.check_model(written, full_check=True)
    require_clean(written, target)
    return plan, written


@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
def test_a_shortcut_that_selects_leaves_every_code_as_it_is(target, option_a, images):
    graph = Graph(option_a)
    (shortcut,) = [node for node in graph.nodes if selects(graph, node)]
    _, written = quantized(option_a, images, target)
    codes = {n.input[0]: n.output[0] for n in written.graph.node if n.op_type == "QuantizeLinear"}
    source, out = shortcut.input[0], shortcut.output[0]
    found = run(written, images, [codes[source], codes[out]])
    before, after = found[codes[source]], found[codes[out]]
    np.testing.assert_array_equal(after[:, 8:24], before[:, :, ::2, ::2])
    assert len(np.unique(after[:, :8])) == 1  # the code of zero


def test_the_first_layer_gets_a_fourth_channel_of_zeros(option_a, images):
    plan, written = quantized(option_a, images)
    assert plan.widened == {"sub": 1}
    graph = Graph(written)
    weight = next(value for name, value in graph.constants.items() if name.startswith("stem.weight.codes"))
    assert weight.shape == (16, 4, 3, 3)
    assert not weight[:, 3].any()
    (pad,) = [node for node in graph.nodes if node.op_type == "Pad"]
    assert pad.input[0] == "images"
    assert [reader.node.op_type for reader in graph.readers(pad.output[0])] == ["Sub"]


def test_the_fourth_channel_changes_no_logit(option_a, images):
    plan, written = quantized(option_a, images)
    values = {**run(option_a, images, [n for n in plan.calibrated() if n != "images"]), "images": images}
    plan.widened.clear()
    found = {name: (float(values[name].min()), float(values[name].max())) for name in plan.calibrated()}
    narrow = write_qdq(option_a, plan, found)
    np.testing.assert_array_equal(run(written, images, ["logits"])["logits"], run(narrow, images, ["logits"])["logits"])


@pytest.mark.parametrize(
    ("module", "target"),
    [(OptionA(width=8), "cpu"), (TwoReaders(), "cpu"), (OptionA(), "tensorrt")],
    ids=["few outputs", "two readers", "tensorrt"],
)
def test_images_stay_three_channels_where_a_fourth_does_not_help(module, target, images):
    plan, _ = quantized(captured(module), images, target)
    assert plan.widened == {}


def test_four_channels_need_no_fifth():
    spec = InputSpec(channels=4, height=8, width=8)
    module = nn.Sequential(nn.Conv2d(4, 16, 3), nn.Flatten(), nn.Linear(16 * 36, 4))
    plan = PLANNERS.build("cpu").plan(Graph(captured(module, spec)))
    assert plan.widened == {}


def test_images_without_normalisation_are_widened_too():
    spec = InputSpec(channels=1, height=8, width=8)
    module = nn.Sequential(nn.Conv2d(1, 16, 3), nn.Flatten(), nn.Linear(16 * 36, 4))
    images = np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32)
    plan, written = quantized(captured(module, spec), images)
    assert plan.widened == {"images": 3}
    assert run(written, images, ["logits"])["logits"].shape == (4, 4)
