"""Operators that move, cut, join and describe tensors agree with ONNX Runtime, at any batch size."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from rctk_export.onnx_module import OnnxModule  # noqa: E402
from rctk_kernels.errors import UnsupportedOperatorError  # noqa: E402


def ints(*values):
    return np.array(values, dtype=np.int64)


SHAPE = (4, 5, 6)
MOVES = {
    "Identity": ("Identity", 20, [], {}),
    "Dropout": ("Dropout", 20, [], {}),
    "Reshape infers": ("Reshape", 20, [ints(-1, 120)], {}),
    "Reshape keeps": ("Reshape", 20, [ints(0, 2, -1, 6)], {}),
    "Flatten": ("Flatten", 20, [], {}),
    "Flatten negative": ("Flatten", 20, [], {"axis": -3}),
    "Transpose": ("Transpose", 20, [], {"perm": [0, 2, 3, 1]}),
    "Unsqueeze": ("Unsqueeze", 20, [ints(1, -1)], {}),
    "Unsqueeze by attribute": ("Unsqueeze", 11, [], {"axes": [1, 2]}),
    "Slice": ("Slice", 20, [ints(1, 0), ints(3, 2**63 - 1), ints(1, 3), ints(1, 2)], {}),
    "Slice from the end": ("Slice", 20, [ints(-2), ints(2**63 - 1), ints(-1)], {}),
    "Slice backwards": ("Slice", 20, [ints(-1), ints(-(2**63)), ints(2), ints(-2)], {}),
    "Slice backwards in part": ("Slice", 20, [ints(4), ints(0), ints(2), ints(-1)], {}),
    "Slice by attributes": ("Slice", 9, [], {"starts": [1, 1], "ends": [3, -1], "axes": [1, 3]}),
    "Gather many": ("Gather", 20, [ints(0, -1, 2)], {"axis": 1}),
    "Gather one": ("Gather", 20, [np.array(-1, dtype=np.int64)], {"axis": 3}),
    "Gather a table": ("Gather", 20, [np.array([[0, 1], [2, 3]], dtype=np.int64)], {"axis": 2}),
    "Pad": ("Pad", 20, [ints(0, 1, 0, 2, 0, 2, 1, 0), np.float32(0.5)], {}),
    "Pad without value": ("Pad", 20, [ints(0, 0, 1, 1, 0, 0, 1, 1)], {}),
    "Pad axes": ("Pad", 20, [ints(1, 2, 0, 1), None, ints(1, -1)], {}),
    "Pad cuts": ("Pad", 20, [ints(0, 0, -1, 1, 0, 0, -2, 0)], {}),
    "Pad reflect": ("Pad", 20, [ints(0, 1, 2, 1, 0, 3, 4, 5)], {"mode": "reflect"}),
    "Pad edge": ("Pad", 20, [ints(0, 0, 2, 7, 0, 1, 0, 1)], {"mode": "edge"}),
    "Pad wrap": ("Pad", 20, [ints(0, 0, 2, 1, 0, 1, 0, 4)], {"mode": "wrap"}),
    "Pad by attributes": ("Pad", 10, [], {"pads": [0, 1, 0, 2, 0, 2, 1, 0], "value": 0.5}),
    "Expand": ("Expand", 20, [ints(3, 4, 5, 6)], {}),
    "Tile": ("Tile", 20, [ints(1, 2, 1, 3)], {}),
    "DepthToSpace": ("DepthToSpace", 20, [], {"blocksize": 2}),
    "DepthToSpace CRD": ("DepthToSpace", 20, [], {"blocksize": 2, "mode": "CRD"}),
    "Cast to float16": ("Cast", 20, [], {"to": TensorProto.FLOAT}),
}


@pytest.mark.parametrize(("op", "opset", "constants", "attributes"), MOVES.values(), ids=MOVES)
def test_operator_agrees(tools, agrees, op, opset, constants, attributes):
    agrees(tools.one_node(op, *constants, shape=SHAPE, opset=opset, **attributes), tools.images(SHAPE))


def test_space_to_depth_agrees(tools, agrees):
    agrees(tools.one_node("SpaceToDepth", shape=(3, 4, 6), blocksize=2), tools.images((3, 4, 6)))


@pytest.mark.parametrize(("opset", "axes"), [(11, None), (20, ints(1, 3))])
def test_squeeze_agrees(tools, agrees, opset, axes):
    constants, attributes = ([], {"axes": [1, 3]}) if axes is None else ([axes], {})
    model = tools.one_node("Squeeze", *constants, shape=(1, 5, 1), opset=opset, **attributes)
    agrees(model, tools.images((1, 5, 1)))


@pytest.mark.parametrize("axis", [0, 2, 3])
def test_flatten_anywhere_agrees(tools, agrees, axis):
    nodes = [helper.make_node("Flatten", ["x"], ["two"], axis=axis), helper.make_node("Reshape", ["two", "c"], ["y"])]
    agrees(tools.graph_of(nodes, {"c": ints(-1, 120)}, shape=SHAPE), tools.images(SHAPE))


def test_reflect_padding_goes_to_and_fro_more_than_once(tools):
    model = tools.one_node("Pad", ints(0, 0, 0, 5), shape=(3,), mode="reflect")
    assert OnnxModule(model)(torch.tensor([[1.0, 2.0, 3.0]])).tolist() == [[1, 2, 3, 2, 1, 2, 3, 2]]


SPLITS = {
    "sizes": (20, [ints(1, 3)], {}, 2),
    "sizes by attribute": (11, [], {"split": [1, 3]}, 2),
    "equal parts": (20, [], {"num_outputs": 2}, 2),
    "smaller last part": (20, [], {"num_outputs": 3}, 3),
}


@pytest.mark.parametrize(("opset", "constants", "attributes", "parts"), SPLITS.values(), ids=SPLITS)
def test_split_and_concat_agree(tools, agrees, opset, constants, attributes, parts):
    names = [f"p{i}" for i in range(parts)]
    nodes = [
        helper.make_node("Split", ["x", *(["c"] if constants else [])], names, axis=1, **attributes),
        helper.make_node("Concat", names[::-1], ["y"], axis=1),
    ]
    channels = 4 if parts == 2 else 5
    model = tools.graph_of(nodes, {"c": constants[0]} if constants else {}, shape=(channels, 5), opset=opset)
    agrees(model, tools.images((channels, 5)))


def test_parts_of_a_split_that_nobody_reads_are_dropped(tools, agrees):
    nodes = [
        helper.make_node("Split", ["x"], ["a", "b", "c"], axis=1, num_outputs=3),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    agrees(tools.graph_of(nodes, {}, shape=(6, 5)), tools.images((6, 5)))


@pytest.mark.parametrize("count", [1, 4])
def test_shape_arithmetic_follows_the_batch(tools, agrees, count):
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "at"], ["n1"]),
        helper.make_node("Slice", ["shape", "one", "three"], ["rest"]),
        helper.make_node("ReduceProd", ["rest"], ["product"]),
        helper.make_node("Concat", ["n1", "product", "minus"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["flat"]),
        helper.make_node("Size", ["x"], ["size"]),
        helper.make_node("Cast", ["size"], ["real"], to=1),
        helper.make_node("ConstantOfShape", ["n1"], ["fill"], value=numpy_helper.from_array(np.array([2], np.float32))),
        helper.make_node("Range", ["zero", "n", "step"], ["rows"]),
        helper.make_node("Cast", ["rows"], ["row"], to=1),
        helper.make_node("Add", ["fill", "row"], ["per"]),
        helper.make_node("Add", ["per", "real"], ["total"]),
        helper.make_node("Reshape", ["total", "column"], ["shift"]),
        helper.make_node("Add", ["flat", "shift"], ["y"]),
    ]
    constants = {"zero": np.int64(0), "step": np.int64(1), "at": ints(0), "one": ints(1), "three": ints(3)}
    constants |= {"minus": ints(-1), "column": ints(-1, 1, 1)}
    model = tools.graph_of(nodes, constants, shape=SHAPE)
    agrees(model, tools.images(SHAPE, count=count))
    assert not list(OnnxModule(model).buffers())  # sizes live on the host, not among the values


def test_a_cast_to_float16_does_not_round(tools):
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Relu", ["half"], ["y"]),
    ]
    x = torch.tensor([[1 + 2**-20]])
    assert OnnxModule(tools.graph_of(nodes, {}, shape=(1,)))(x).tolist() == x.tolist()


def test_an_unknown_pad_mode_is_refused(tools):
    model = tools.one_node("Pad", ints(0, 1, 0, 1), shape=(3,), mode="mirror")
    with pytest.raises(UnsupportedOperatorError, match="Pad node 'node': mode 'mirror'"):
        OnnxModule(model)
