from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from rctk_export.lint.layers import layer_rows, parameter_count


@pytest.mark.parametrize("target", ["tensorrt", "cpu-mirror", "cpu"])
def test_rows_of_a_known_net(sketch, target):
    rows = layer_rows(sketch(target)().model())
    assert [(row.name, row.op, row.weight_shape) for row in rows] == [
        ("conv1", "Conv", (4, 3, 3, 3)),
        ("conv2", "Conv", (4, 4, 3, 3)),
        ("logits", "Gemm", (5, 4)),
    ]
    # 8x8 outputs of 4 channels through windows of 3x3x3 and 3x3x4; 5 outputs of 4 inputs
    assert [row.macs for row in rows] == [8 * 8 * 4 * 27, 8 * 8 * 4 * 36, 5 * 4]
    assert [row.parameters for row in rows] == [4 * 27 + 4, 4 * 36 + 4, 5 * 4]
    assert {row.arithmetic for row in rows} == {"int8"}
    assert rows[0].weight_scales == pytest.approx((0.002, 0.002))
    assert rows[1].input_scale == pytest.approx(0.02)
    assert parameter_count(sketch(target)().model()) == 112 + 148 + 20


def test_a_float_layer_says_why(sketch):
    s = sketch("tensorrt")()
    s.rewire("conv2", 0, "act1")
    s.arrays["wf"] = np.ones((5, 4), np.float32)
    s.rewire("logits", 1, "wf")
    rows = {row.name: row for row in layer_rows(s.model(), {"logits": "kept float on request"})}
    assert rows["conv2"].arithmetic == "int8 weights"
    assert rows["conv2"].reason == "its input 'act1' is float"
    assert (rows["logits"].arithmetic, rows["logits"].reason) == ("float", "kept float on request")
    assert rows["conv1"].reason == ""


def graph(nodes, shape, arrays, out="y"):
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones(size, np.float32), name) for name, size in arrays.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(
    ("node", "shape", "weight", "macs"),
    [
        # depthwise: 4 channels, each output value sums 9 products
        (helper.make_node("Conv", ["x", "w"], ["y"], group=4, pads=[1, 1, 1, 1]), (4, 6, 6), (4, 1, 3, 3), 36 * 4 * 9),
        # stride 2 leaves 3x3 outputs
        (helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2]), (4, 6, 6), (8, 4, 1, 1), 9 * 8 * 4),
        # every input value is multiplied into 2x2 windows of 8 channels
        (helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2]), (4, 6, 6), (4, 8, 2, 2), 36 * 4 * 8 * 4),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), (7,), (7, 3), 21),
        # a product over a sequence of 5
        (helper.make_node("MatMul", ["x", "w"], ["y"]), (5, 7), (7, 3), 5 * 21),
    ],
)
def test_multiplications_of_every_kind_of_layer(node, shape, weight, macs):
    assert layer_rows(graph([node], shape, {"w": weight}))[0].macs == macs


def test_unknown_sizes_give_no_count():
    model = graph([helper.make_node("Conv", ["x", "w"], ["y"])], ("c", "h", "w"), {"w": (4, 3, 3, 3)})
    assert layer_rows(model)[0].macs is None


def test_shared_weights_and_normalisations_are_counted_once():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["b"]),
        helper.make_node("BatchNormalization", ["b", "g", "o", "m", "v"], ["y"]),
    ]
    model = graph(nodes, (4,), {"w": (4, 4), "g": (4,), "o": (4,), "m": (4,), "v": (4,)})
    assert parameter_count(model) == 16 + 4 + 4
