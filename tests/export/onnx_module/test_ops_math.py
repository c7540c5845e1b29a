"""Elementwise operators and reductions agree with ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from onnx import helper  # noqa: E402

from rctk_export.onnx_module import OnnxModule  # noqa: E402

F = np.float32
I = np.int64  # noqa: E741
C = np.linspace(-1.5, 2, 4, dtype=np.float32).reshape(4, 1, 1)
AXES = np.array([2, 3], dtype=np.int64)

ELEMENTWISE = {
    **{
        op: (op, [], {})
        for op in (
            *(
                "Relu",
                "Sigmoid",
                "HardSwish",
                "Tanh",
                "Softplus",
                "Softsign",
                "Mish",
                "Erf",
                "Exp",
                "Abs",
                "Neg",
                "Sign",
            ),
            *("Sin", "Cos", "Floor", "Ceil", "Round", "Reciprocal", "LeakyRelu", "Elu", "Celu", "Selu", "HardSigmoid"),
            *("ThresholdedRelu", "Gelu", "Softmax", "LogSoftmax"),
        )
    },
    **{op: (op, [C], {}) for op in ("Add", "Sub", "Mul", "Div", "Min", "Max", "Sum", "Mean", "PRelu")},
    "variadic Max": ("Max", [C, -C], {}),
    "variadic Mean": ("Mean", [C, -C, C], {}),
    "Gelu tanh": ("Gelu", [], {"approximate": "tanh"}),
    "LeakyRelu alpha": ("LeakyRelu", [], {"alpha": 0.3}),
    "Elu alpha": ("Elu", [], {"alpha": 0.3}),
    "Celu alpha": ("Celu", [], {"alpha": 0.3}),
    "Selu constants": ("Selu", [], {"alpha": 1.5, "gamma": 1.2}),
    "HardSigmoid constants": ("HardSigmoid", [], {"alpha": 0.3, "beta": 0.4}),
    "Softmax over channels": ("Softmax", [], {"axis": 1}),
    "Pow of a number": ("Pow", [F(2)], {}),
    "Pow of a tensor": ("Pow", [np.full((4, 1, 1), 3, F)], {}),
    "Clip both": ("Clip", [F(-0.5), F(0.75)], {}),
    "Clip below": ("Clip", [F(-0.5)], {}),
    "Clip above": ("Clip", [None, F(0.75)], {}),
    "ReduceMean": ("ReduceMean", [AXES], {"keepdims": 0}),
    "ReduceMean kept": ("ReduceMean", [AXES], {}),
    "ReduceMean negative axes": ("ReduceMean", [np.array([-1], I)], {}),
    "ReduceMean idle": ("ReduceMean", [], {"noop_with_empty_axes": 1}),
    **{
        op: (op, [AXES], {})
        for op in (
            *("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"),
            *("ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSumExp"),
        )
    },
}


@pytest.mark.parametrize(("op", "constants", "attributes"), ELEMENTWISE.values(), ids=ELEMENTWISE)
def test_operator_agrees(tools, agrees, op, constants, attributes):
    agrees(tools.one_node(op, *constants, shape=(4, 5, 6), **attributes), tools.images((4, 5, 6)))


OLD = {
    "Clip by attributes": ("Clip", 9, {"min": -0.5, "max": 0.75}),
    "Clip without bounds": ("Clip", 9, {}),
    "Softmax joins axes": ("Softmax", 11, {}),
    "Softmax joins axes from 2": ("Softmax", 11, {"axis": 2}),
    "LogSoftmax joins axes": ("LogSoftmax", 11, {}),
    "ReduceMean by attribute": ("ReduceMean", 13, {"axes": [2, 3], "keepdims": 0}),
    "ReduceSum by attribute": ("ReduceSum", 11, {"axes": [1]}),
}


@pytest.mark.parametrize(("op", "opset", "attributes"), OLD.values(), ids=OLD)
def test_old_forms_agree(tools, agrees, op, opset, attributes):
    agrees(tools.one_node(op, shape=(4, 5, 6), opset=opset, **attributes), tools.images((4, 5, 6)))


@pytest.mark.parametrize("op", ["Log", "Sqrt"])
def test_operators_of_positive_numbers_agree(tools, agrees, op):
    agrees(tools.one_node(op, shape=(4, 5, 6)), abs(tools.images((4, 5, 6))) + F(0.1))


@pytest.mark.parametrize("compare", ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
def test_comparisons_choose_elementwise(tools, agrees, compare):
    nodes = [
        helper.make_node(compare, ["x", "c"], ["a"]),
        helper.make_node("Greater", ["x", "zero"], ["b"]),
        helper.make_node("Not", ["b"], ["not"]),
        helper.make_node("And", ["a", "not"], ["and"]),
        helper.make_node("Or", ["a", "b"], ["or"]),
        helper.make_node("Xor", ["and", "or"], ["xor"]),
        helper.make_node("Where", ["xor", "x", "c"], ["y"]),
    ]
    model = tools.graph_of(nodes, {"c": C, "zero": F(0)}, shape=(4, 5, 6))
    agrees(model, np.round(tools.images((4, 5, 6)) * 2) / 2)


def test_whole_numbers_are_divided_towards_zero(tools):
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], start=1),
        helper.make_node("Neg", ["shape"], ["negative"]),
        helper.make_node("Div", ["negative", "two"], ["half"]),
        helper.make_node("Cast", ["half"], ["real"], to=1),
        helper.make_node("ReduceMax", ["x", "axes"], ["top"], keepdims=0),
        helper.make_node("Mul", ["top", "real"], ["y"]),
    ]
    model = tools.graph_of(nodes, {"two": I(2), "axes": np.array([2], I)}, shape=(1, 5))
    x = np.ones((1, 1, 5), dtype=F)
    assert OnnxModule(model)(torch.from_numpy(x)).tolist() == [[0, -2]]  # -5 / 2 = -2.5


def test_clip_bounds_may_be_computed(tools, agrees):
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        helper.make_node("Clip", ["x", "mean"], ["y"]),
    ]
    agrees(tools.graph_of(nodes, {}, shape=(4, 5)), tools.images((4, 5)))


def test_the_root_of_zero_has_the_gradient_zero(tools):
    x = torch.tensor([[0.0, 4.0]], requires_grad=True)
    y = OnnxModule(tools.one_node("Sqrt", shape=(2,)))(x)
    y.sum().backward()
    assert y.tolist() == [[0, 2]]
    assert x.grad.tolist() == [[0, 0.25]]


@pytest.mark.parametrize("equation", ["nchw,kc->nk", "nchw, kc -> nkhw", "n...,kc->n...k"])
def test_sums_of_products_agree(tools, agrees, equation):
    node = onnx.helper.make_node("Einsum", ["x", "w"], ["y"], equation=equation)
    weight = np.random.default_rng(1).standard_normal((3, 4)).astype(F)
    agrees(tools.graph_of([node], {"w": weight}, shape=(4, 5, 6)), tools.images((4, 5, 6)))


def test_attention_written_as_sums_of_products_agrees(tools, agrees):
    nodes = [
        onnx.helper.make_node("Einsum", ["x", "x"], ["scores"], equation="bhid,bhjd->bhij"),
        onnx.helper.make_node("Softmax", ["scores"], ["shares"]),
        onnx.helper.make_node("Einsum", ["shares", "x"], ["y"], equation="bhij,bhjd->bihd"),
    ]
    agrees(tools.graph_of(nodes, {}, shape=(2, 5, 6)), tools.images((2, 5, 6)))
