"""Graphs that are no classifier are refused by name; constants become parameters, buffers or sizes."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from onnx import helper  # noqa: E402

from rctk_export.onnx_module import OnnxModule  # noqa: E402
from rctk_kernels.errors import GraphError, OptionError, UnsupportedOperatorError  # noqa: E402

RELU = helper.make_node("Relu", ["x"], ["y"], name="relu")


def test_an_unknown_operator_is_named_at_construction(tools):
    model = tools.one_node("NonMaxSuppression", shape=(4,))
    with pytest.raises(UnsupportedOperatorError, match="operator NonMaxSuppression \\(node 'node'\\)"):
        OnnxModule(model)
    with pytest.raises(UnsupportedOperatorError, match=r"operator com\.microsoft\.Relu \(node 'node'\)"):
        OnnxModule(tools.one_node("Relu", shape=(4,), domain="com.microsoft"))


def test_an_unknown_operator_that_the_logits_do_not_need_is_no_obstacle(tools):
    nodes = [RELU, helper.make_node("NonMaxSuppression", ["x"], ["boxes"])]
    assert OnnxModule(tools.graph_of(nodes, {}, shape=(1,)))(torch.tensor([[2.0]])).item() == 2


def test_a_malformed_node_is_named(tools):
    with pytest.raises(GraphError, match=r"LRN node 'node' is malformed .*'size'"):
        OnnxModule(tools.one_node("LRN", shape=(4, 5)))


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ({"outputs": ("y", "x2")}, r"one output, this graph has 2 \(y, x2\)"),
        ({"inputs": ("x", "mask")}, r"one input, this graph has 2 \(x, mask\)"),
        ({"inputs": ()}, r"one input, this graph has 0 \(none\)"),
    ],
)
def test_several_ends_are_refused_by_name(tools, ends, message):
    with pytest.raises(GraphError, match=message):
        OnnxModule(tools.graph_of([RELU, helper.make_node("Neg", ["x"], ["x2"])], {}, shape=(4,), **ends))


def test_initializers_listed_as_inputs_are_no_inputs(tools):
    model = tools.one_node("Add", np.float32([1, 2]), shape=(2,))
    model.graph.input.append(helper.make_tensor_value_info("c0", 1, [2]))
    assert OnnxModule(model)(torch.zeros(1, 2)).tolist() == [[1, 2]]


def test_a_tensor_that_nothing_makes_is_named(tools):
    nodes = [helper.make_node("Add", ["x", "ghost"], ["y"], name="add")]
    with pytest.raises(GraphError, match="Add node 'add' reads 'ghost'"):
        OnnxModule(tools.graph_of(nodes, {}, shape=(4,)))
    with pytest.raises(GraphError, match="nothing makes the output 'y'"):
        OnnxModule(tools.graph_of([helper.make_node("Relu", ["x"], ["z"])], {}, shape=(4,)))


def test_very_old_opsets_are_refused(tools):
    with pytest.raises(GraphError, match="opset 6 is older than 7"):
        OnnxModule(tools.graph_of([RELU], {}, shape=(4,), opset=6))


def test_strings_are_refused(tools):
    node = helper.make_node("Constant", [], ["text"], value_string="hello", name="words")
    with pytest.raises(UnsupportedOperatorError, match="Constant node 'words'"):
        OnnxModule(tools.graph_of([node, RELU], {}, shape=(4,)))


@pytest.mark.parametrize("settings", [{"mode": "quick"}, {"ste": "soft"}])
def test_settings_outside_their_choices_are_refused(tools, settings):
    with pytest.raises(OptionError, match="must be one of"):
        OnnxModule(tools.graph_of([RELU], {}, shape=(4,)), **settings)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(GraphError, match=r"no ONNX file .*absent\.onnx"):
        OnnxModule(tmp_path / "absent.onnx")


def test_weights_are_parameters_and_other_constants_are_not(tools):
    nodes = [
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["normal"]),
        helper.make_node("Transpose", ["w.t"], ["w"], perm=[1, 0]),
        helper.make_node("MatMul", ["normal", "w"], ["product"]),
        helper.make_node("Add", ["b", "product"], ["sum"]),
        helper.make_node("MatMul", ["sum", "w2"], ["second"]),
        helper.make_node("Add", ["second", "b2"], ["shifted"]),
        helper.make_node("Add", ["shifted", "offset"], ["moved"]),
        helper.make_node("Clip", ["moved", "low"], ["clipped"]),
        helper.make_node("BatchNormalization", ["clipped", "gain", "shift", "mu", "var"], ["norm"]),
        helper.make_node("Reshape", ["norm", "target"], ["y"]),
    ]
    vector = np.ones(3, np.float32)
    constants = dict.fromkeys(["mean", "std"], np.ones(4, np.float32))
    constants |= dict.fromkeys(["b", "b2", "offset", "gain", "shift", "mu", "var"], vector)
    constants |= {
        "w.t": np.ones((3, 4), np.float32),
        "w2": np.eye(3, dtype=np.float32),
        "low": np.float32(0),
        "target": np.array([-1, 3]),
    }
    module = OnnxModule(tools.graph_of(nodes, constants, shape=(4,)))
    weights, others = {"w/t", "b", "w2", "b2", "gain", "shift"}, {"mean", "std", "offset", "mu", "var", "low"}
    assert {name for name, _ in module.named_parameters()} == {f"graph/{name}" for name in weights}
    assert {name for name, _ in module.named_buffers()} == {f"graph/{name}" for name in others}
    assert set(module.initializers) == set(constants)
    assert module.initializers["w.t"] is dict(module.named_parameters())["graph/w/t"]
    assert module.initializers["target"].tolist() == [-1, 3]


def test_names_that_differ_only_in_a_dot_stay_apart(tools):
    nodes = [helper.make_node("Gemm", ["x", "a.b"], ["h"]), helper.make_node("Gemm", ["h", "a/b"], ["y"])]
    constants = {"a.b": np.full((1, 1), 2, np.float32), "a/b": np.full((1, 1), 3, np.float32)}
    module = OnnxModule(tools.graph_of(nodes, constants, shape=(1,)))
    assert module(torch.ones(1, 1)).item() == 6
    assert {name: v.item() for name, v in module.initializers.items()} == {"a.b": 2, "a/b": 3}


def test_half_precision_files_compute_in_float32(tools):
    model = tools.one_node("Gemm", np.full((1, 1), 1 / 3, np.float16), shape=(1,))
    module = OnnxModule(model)
    weight = module.initializers["c0"]
    assert weight.dtype == torch.float32
    assert weight.item() == float(np.float16(1 / 3))
    assert module(torch.full((1, 1), 1 + 2**-12)).item() == pytest.approx(
        float(np.float16(1 / 3)) * (1 + 2**-12), rel=1e-6
    )


def test_local_functions_are_inlined(tools):
    body = [helper.make_node("Relu", ["a"], ["r"]), helper.make_node("Neg", ["r"], ["b"])]
    function = helper.make_function("mine", "NegRelu", ["a"], ["b"], body, [helper.make_opsetid("", 20)])
    model = tools.graph_of([helper.make_node("NegRelu", ["x"], ["y"], domain="mine")], {}, shape=(2,))
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    assert OnnxModule(model)(torch.tensor([[1.0, -1.0]])).tolist() == [[-1, 0]]


@pytest.mark.parametrize(
    "attribute",
    [{"value_float": 2.0}, {"value_floats": [2.0]}, {"value": onnx.numpy_helper.from_array(np.float32([2]))}],
)
def test_constant_nodes_in_every_form(tools, attribute):
    nodes = [helper.make_node("Constant", [], ["two"], **attribute), helper.make_node("Mul", ["x", "two"], ["y"])]
    assert OnnxModule(tools.graph_of(nodes, {}, shape=(1,)))(torch.tensor([[3.0]])).item() == 6
