"""Linear layers of any number of axes become Gemm on rows."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from torch import nn
from torch.nn import functional as F

from rctk_export.capture import capture, run_onnx
from rctk_export.input_spec import InputSpec
from rctk_export.simplify import simplify

SPEC = InputSpec(channels=3, height=8, width=8)


class Tokens(nn.Module):
    """Two linear layers on tokens ``(N, T, C)``, one of them across tokens and without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 6, 4, 4)
        self.mix = nn.Linear(4, 4, bias=False)
        self.fc1 = nn.Linear(6, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        x = self.patch(x).flatten(2)
        return self.head(F.gelu(self.fc1(self.mix(x).transpose(1, 2))).mean(1))


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def product(shape: list[int | str], bias: np.ndarray) -> onnx.ModelProto:
    weight = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["images", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["logits"]),
    ]
    tensors = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias.astype(np.float32), "b")]
    info = helper.make_tensor_value_info
    ends = [info("images", 1, shape)], [info("logits", 1, [*shape[:-1], 3])]
    graph = helper.make_graph(nodes, "g", *ends, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


class LastAxis(nn.Module):
    """A BatchNorm, and a linear layer on the last of its axes, which is as long as it has channels."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.fc = nn.BatchNorm2d(3), nn.Linear(3, 5)

    def forward(self, x):
        return self.fc(self.bn(x)).mean((1, 2))


def test_a_batchnorm_folds_into_no_layer_that_mixes_another_axis():
    module = LastAxis().eval()
    nn.init.uniform_(module.bn.running_mean)
    nn.init.uniform_(module.bn.weight)
    model = capture(module, InputSpec(channels=3, height=4, width=3))  # which compares it with torch
    assert "BatchNormalization" in operators(model)


def test_linear_layers_on_tokens_are_gemm_and_keep_their_names():
    model = capture(Tokens().eval(), SPEC)  # which compares it with torch
    assert "MatMul" not in operators(model)
    assert {"fc1", "head"} <= {node.name for node in model.graph.node if node.op_type == "Gemm"}


@pytest.mark.parametrize("shape", [["batch", 4], ["batch", 5, 4], [5, "batch", 4], ["batch", 2, 5, 4]], ids=str)
def test_rows_get_their_shape_back(shape):
    before = product(shape, np.arange(3))
    after = simplify(before)
    assert operators(after) == (["Gemm"] if len(shape) == 2 else ["Reshape", "Gemm", "Reshape"])
    images = np.random.default_rng(1).standard_normal([7 if size == "batch" else size for size in shape])
    images = images.astype(np.float32)
    np.testing.assert_allclose(run_onnx(after, images), run_onnx(before, images), rtol=1e-5, atol=1e-6)


def test_what_is_added_row_by_row_is_no_bias():
    assert operators(simplify(product(["batch", 3, 4], np.ones((3, 1))))) == ["Reshape", "Gemm", "Reshape", "Add"]


def test_two_free_axes_stay_a_product():
    assert operators(simplify(product(["batch", "tokens", 4], np.arange(3)))) == ["MatMul", "Add"]
