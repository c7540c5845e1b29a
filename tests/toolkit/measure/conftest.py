from __future__ import annotations

import numpy as np
import pytest

from rctk_export.engine import Source
from rctk_export.input_spec import InputSpec


@pytest.fixture
def linear(tmp_path):
    """Make an ONNX file of one linear layer; ``linear(side, classes)`` gives its source."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper = onnx.helper

    def make(side=8, classes=10, name="linear.onnx"):
        weight = np.random.default_rng(0).normal(size=(side * side, classes)).astype(np.float32)
        nodes = [helper.make_node("Flatten", ["images"], ["x"]), helper.make_node("MatMul", ["x", "w"], ["logits"])]
        ends = [
            [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["N", 1, side, side])],
            [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", classes])],
        ]
        graph = helper.make_graph(nodes, "linear", *ends, [onnx.numpy_helper.from_array(weight, "w")])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.save(model, tmp_path / name)
        return Source(path=tmp_path / name, input=InputSpec(channels=1, height=side, width=side))

    return make
