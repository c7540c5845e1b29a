"""Factors move into convolutions, and the outputs stay."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from rctk_export.simplify import simplify

IMAGES = np.random.default_rng(0).random((2, 4, 6, 6), dtype=np.float32)


def model(nodes, channels_out=6, **arrays):
    """Return a graph from ``images`` (N, 4, 6, 6) to ``logits``; the last node makes them."""
    return helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 4, 6, 6])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", channels_out, None, None])],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )


def run(proto):
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": IMAGES})[0]


def weight(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def conv(source="x", **settings):
    return helper.make_node("Conv", [source, "w"], ["logits"], pads=[1, 1, 1, 1], **settings)


def operators(proto):
    return [node.op_type for node in proto.graph.node]


PER_CHANNEL = np.array([0.5, 2, 4, 0.25], dtype=np.float32).reshape(4, 1, 1)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("operator", "inputs", "factor"),
    [
        ("Div", ["images", "c"], PER_CHANNEL),
        ("Mul", ["images", "c"], PER_CHANNEL[None]),
        ("Mul", ["c", "images"], np.float32(3)),
    ],
)
def test_a_factor_moves_into_a_padded_convolution(operator, inputs, factor, groups):
    node = helper.make_node(operator, inputs, ["x"])
    before = model([node, conv(group=groups)], w=weight(6, 4 // groups, 3, 3), c=factor)
    after = simplify(before)
    assert operators(after) == ["Conv"]
    np.testing.assert_allclose(run(after), run(before), rtol=1e-5, atol=1e-5)


def test_the_weight_is_divided_channel_by_channel():
    before = model(
        [helper.make_node("Div", ["images", "c"], ["x"]), conv()], w=np.ones((6, 4, 3, 3), np.float32), c=PER_CHANNEL
    )
    (stored,) = simplify(before).graph.initializer
    assert numpy_helper.to_array(stored)[5, :, 0, 0].tolist() == [2, 0.5, 0.25, 4]


def test_a_factor_that_somebody_else_reads_stays():
    nodes = [
        helper.make_node("Mul", ["images", "c"], ["x"]),
        helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["x", "y"], ["logits"]),
    ]
    before = model(nodes, channels_out=4, w=weight(4, 4, 3, 3), c=PER_CHANNEL)
    assert operators(simplify(before)) == ["Mul", "Conv", "Add"]


@pytest.mark.parametrize(
    "factor",
    [np.zeros((4, 1, 1), np.float32), np.arange(1, 7, dtype=np.float32), np.ones((6, 1), np.float32) * 2],
    ids=["zero", "per column", "per row"],
)
def test_a_divisor_that_is_no_factor_per_channel_stays(factor):
    before = model([helper.make_node("Div", ["images", "c"], ["x"]), conv()], w=weight(6, 4, 3, 3), c=factor)
    assert operators(simplify(before)) == ["Div", "Conv"]


def test_a_constant_divided_by_the_image_is_no_factor():
    before = model([helper.make_node("Div", ["c", "images"], ["x"]), conv()], w=weight(6, 4, 3, 3), c=PER_CHANNEL)
    assert operators(simplify(before)) == ["Div", "Conv"]


def test_a_weight_that_two_convolutions_share_is_scaled_for_one():
    nodes = [
        helper.make_node("Mul", ["images", "c"], ["x"]),
        helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["images", "w"], ["z"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["y", "z"], ["logits"]),
    ]
    before = model(nodes, w=weight(6, 4, 3, 3), c=PER_CHANNEL)
    after = simplify(before)
    assert operators(after) == ["Conv", "Conv", "Add"]
    np.testing.assert_allclose(run(after), run(before), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("operator", "value"), [("Sub", 0), ("Add", 0), ("Mul", 1), ("Div", 1)])
def test_a_step_that_changes_nothing_goes(operator, value):
    nodes = [helper.make_node(operator, ["images", "c"], ["x"]), helper.make_node("Relu", ["x"], ["logits"])]
    after = simplify(model(nodes, channels_out=4, c=np.full((1, 4, 1, 1), value, np.float32)))
    assert operators(after) == ["Relu"]


def test_zeros_that_widen_a_tensor_stay():
    nodes = [
        helper.make_node("ReduceMax", ["images", "axes"], ["m"]),
        helper.make_node("Add", ["m", "c"], ["x"]),
        helper.make_node("Relu", ["x"], ["logits"]),
    ]
    before = model(nodes, channels_out=4, c=np.zeros((1, 4, 1, 1), np.float32), axes=np.array([1]))
    after = simplify(before)
    assert operators(after) == ["ReduceMax", "Add", "Relu"]
    onnx.checker.check_model(after, full_check=True)
