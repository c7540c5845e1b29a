"""Where each target wants its pairs, shown on the smallest residual net that has all the cases."""

from __future__ import annotations

import io
from collections import Counter

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
from rctk_export.quantize import PLANNERS
from rctk_export.quantize.plan_mirror import mirror
from rctk_export.quantize.write import write_qdq
from rctk_kernels.errors import QuantizationError

SPEC = InputSpec(channels=3, height=8, width=8, mean=(0.5,) * 3, std=(0.25,) * 3)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv3 = nn.Conv2d(8, 16, 3, padding=1, stride=2)
        self.conv4 = nn.Conv2d(16, 16, 3, padding=1)
        self.down = nn.Conv2d(8, 16, 1, stride=2)
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = F.relu(self.conv2(F.relu(self.conv1(x))) + x)
        x = F.relu(self.conv4(F.relu6(self.conv3(x))) + self.down(x))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


@pytest.fixture(scope="module")
def float_model():
    torch.manual_seed(0)
    return capture(Residual().eval(), SPEC)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((16, *SPEC.shape), dtype=np.float32)


def session(model, *, optimize=True, save=""):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if save:
        options.optimized_model_filepath = save
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def ranges(model, tensors, images):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    wanted = [name for name in tensors if name != "images"]
    copy.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in wanted)
    values = dict(zip(wanted, session(copy, optimize=False).run(wanted, {"images": images}), strict=True))
    values["images"] = images
    return {name: (float(values[name].min()), float(values[name].max())) for name in tensors}


def quantized(model, images, target):
    plan = PLANNERS.build(target).plan(Graph(onnx.ModelProto.FromString(model.SerializeToString())))
    return plan, write_qdq(model, plan, ranges(model, plan.calibrated(), images))


def test_cpu_file_is_fully_fused_by_the_optimiser(float_model, images, tmp_path):
    plan, model = quantized(float_model, images, "cpu")
    assert len(plan.layers) == 7
    saved = tmp_path / "optimised.onnx"
    session(model, save=str(saved))
    ops = Counter(node.op_type for node in onnx.load(saved).graph.node)
    assert ops["QLinearConv"] == 6
    assert ops["QGemm"] == 1
    assert ops["QLinearAdd"] == 2
    assert not {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "Relu", "Clip"} & set(ops)


def test_cpu_file_leaves_the_activations_to_saturation(float_model, images):
    plan, model = quantized(float_model, images, "cpu")
    assert len(plan.saturating) == 5
    assert not {"Relu", "Clip"} & {node.op_type for node in model.graph.node}


def test_tensorrt_quantizes_only_the_skip_branch_of_a_residual_add(float_model, images):
    _, model = quantized(float_model, images, "tensorrt")
    makers = {name: node for node in model.graph.node for name in node.output}
    adds = [node for node in model.graph.node if node.op_type == "Add"]
    assert len(adds) == 2
    for add in adds:
        kinds = sorted(makers[name].op_type for name in add.input)
        assert kinds == ["Conv", "DequantizeLinear"]
    main = [makers[name].name for add in adds for name in add.input if makers[name].op_type == "Conv"]
    assert main == ["conv2", "conv4"]  # and not the 1x1 convolution of the shortcut


def test_openvino_rounds_only_the_skip_branch_and_else_places_as_cpu(float_model, images):
    plan, model = quantized(float_model, images, "openvino")
    usual, _ = quantized(float_model, images, "cpu")
    makers = {name: node for node in model.graph.node for name in node.output}
    found = [sorted(makers[name].name for name in node.input) for node in model.graph.node if node.op_type == "Add"]
    assert [[name for name in names if not name.endswith(".dequantize")] for names in found] == [["conv2"], ["conv4"]]
    convs = {node.name: node.output[0] for node in model.graph.node if node.op_type == "Conv"}
    assert usual.tensors.keys() - plan.tensors.keys() == {convs["conv2"], convs["conv4"]}
    assert plan.saturating == usual.saturating


class Sums(nn.Module):
    """A convolution that reads what is added to it, then one with a ReLU in front of the add."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.near = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.far1, self.far2 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 5, 8)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = x + self.near(x)
        x = x + F.relu(self.far2(self.far1(x)))
        return torch.flatten(self.head(x), 1)


def test_openvino_keeps_a_pair_that_it_rounds_and_a_relu_in_front_of_an_add(images):
    torch.manual_seed(0)
    model = capture(Sums().eval(), SPEC)
    plan, made = quantized(model, images, "openvino")
    usual, _ = quantized(model, images, "cpu")
    (relu,) = [node for node in made.graph.node if node.op_type == "Relu"]
    assert usual.tensors.keys() - plan.tensors.keys() == {relu.output[0]}
    assert usual.saturating - plan.saturating == {relu.name}
    assert [node.name for node in made.graph.node if relu.input[0] in node.output] == ["far2"]


def test_tensorrt_scales_are_positive_zero_points_zero_and_biases_float(float_model, images):
    _, model = quantized(float_model, images, "tensorrt")
    values = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            assert (values[node.input[1]] > 0).all()
            assert values[node.input[2]].dtype == np.int8
            assert not values[node.input[2]].any()
        if node.op_type in {"Conv", "Gemm"}:
            assert values[node.input[2]].dtype == np.float32


def test_mirror_gives_identical_logits_in_unoptimised_sessions(float_model, images):
    _, model = quantized(float_model, images, "tensorrt")
    both = [session(m, optimize=False).run(None, {"images": images})[0] for m in (model, mirror(model))]
    assert np.array_equal(both[0], both[1])


@pytest.mark.parametrize("target", ["cpu", "openvino", "tensorrt"])
def test_int8_logits_stay_close_to_float(float_model, images, target):
    _, model = quantized(float_model, images, target)
    onnx.checker.check_model(model, full_check=True)
    expected = session(float_model).run(None, {"images": images})[0]
    found = session(model, optimize=False).run(None, {"images": images})[0]
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


class TokenMean(nn.Module):
    """A residual sum of tokens and their mean; ``both`` lets a linear layer read the sum as well."""

    def __init__(self, *, both=False):
        super().__init__()
        self.patch, self.fc, self.head = nn.Conv2d(3, 16, 2, 2), nn.Linear(16, 16), nn.Linear(16, 5)
        self.more, self.both = nn.Linear(16, 5), both

    def forward(self, x):
        x = F.relu(self.patch(x)).flatten(2).transpose(1, 2)
        x = F.relu(x + self.fc(x))
        return self.head(x.mean(1)) + (self.more(x)[:, 0] if self.both else 0)


@pytest.mark.parametrize("both", [False, True])
def test_openvino_sums_tokens_in_float(both, images):
    openvino = pytest.importorskip("openvino")
    torch.manual_seed(0)
    model = capture(TokenMean(both=both).eval(), SPEC)
    plan, made = quantized(model, images, "openvino")
    (mean,) = [node for node in model.graph.node if node.op_type == "ReduceMean"]
    assert (mean.name, 0) not in plan.readers.get(
        mean.input[0], {(mean.name, 0)} if mean.input[0] in plan.tensors else ()
    )
    engine = openvino.Core().compile_model(
        openvino.Core().read_model(io.BytesIO(made.SerializeToString())), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    (found,) = engine([images]).values()
    expected = session(made, optimize=False).run(None, {"images": images})[0]
    assert np.abs(found - expected).max() < 0.01 * np.abs(expected).max()


class RowMean(nn.Module):
    """A mean over what a convolution along one axis makes, directly or as tokens."""

    def __init__(self, *, tokens):
        super().__init__()
        self.conv, self.head, self.tokens = nn.Conv1d(24, 16, 3), nn.Linear(16, 5), tokens

    def forward(self, x):
        x = F.relu(self.conv(x.flatten(1, 2)))
        return self.head(x.transpose(1, 2).mean(1) if self.tokens else x.mean(2))


@pytest.mark.parametrize("tokens", [False, True])
def test_a_mean_behind_a_convolution_is_no_fault_of_an_openvino_file(tokens, images):
    torch.manual_seed(0)
    model = capture(RowMean(tokens=tokens).eval(), SPEC)
    plan, made = quantized(model, images, "openvino")
    assert [layer.name for layer in plan.layers] == ["conv", "head"]
    assert lint(made, "openvino") == []


class Attention(nn.Module):
    """A product of two computed tensors, and a BatchNorm between a sum and a ReLU."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x):
        x = self.conv(x)
        x = self.bn(x + x.relu()).relu().flatten(2)
        return self.fc((x @ x.transpose(1, 2)).mean(2))


def test_what_stays_float_says_why():
    model = capture(Attention().eval(), InputSpec(channels=3, height=6, width=6))
    for target in ("cpu", "tensorrt"):
        kept = PLANNERS.build(target).plan(Graph(model)).kept_float
        assert {node.op: node.reason for node in kept} == {
            "BatchNormalization": "no layer beside it can take it",
            "MatMul": "all its factors are computed at run time",
        }


def test_a_layer_kept_float_is_float_and_named(float_model, images):
    graph = Graph(onnx.ModelProto.FromString(float_model.SerializeToString()))
    plan = PLANNERS.build("cpu").plan(graph, keep_float=("conv2",))
    assert [(kept.name, kept.reason) for kept in plan.kept_float] == [("conv2", "kept float on request")]
    model = write_qdq(float_model, plan, ranges(float_model, plan.calibrated(), images))
    values = {t.name for t in model.graph.initializer}
    (conv,) = [node for node in model.graph.node if node.name == "conv2"]
    assert conv.input[1] in values  # its weight is the float initializer itself


def test_dead_channels_and_equal_biases_survive(images):
    torch.manual_seed(0)
    module = Residual().eval()
    with torch.no_grad():
        module.conv1.weight[3] = 0
        module.conv1.bias.fill_(0.25)
        module.conv2.bias.fill_(0.25)  # equal to the other one, so that the exporter shares one constant
    model = capture(module, SPEC)
    expected = session(model).run(None, {"images": images})[0]
    for target in ("cpu", "tensorrt"):
        _, made = quantized(model, images, target)
        for optimize in (True, False):
            found = session(made, optimize=optimize).run(None, {"images": images})[0]
            assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def test_a_missing_range_is_refused_by_name(float_model):
    plan = PLANNERS.build("cpu").plan(Graph(onnx.ModelProto.FromString(float_model.SerializeToString())))
    with pytest.raises(QuantizationError, match="calibrate"):
        write_qdq(float_model, plan, {})
