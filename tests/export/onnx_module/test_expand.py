"""Integer operators of other tools give the codes that ONNX Runtime gives."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from onnx import TensorProto, helper  # noqa: E402

from rctk_export.onnx_module import OnnxModule  # noqa: E402
from rctk_kernels.errors import UnsupportedOperatorError  # noqa: E402

MS = "com.microsoft"
RNG = np.random.default_rng(5)
U8, I8 = np.uint8, np.int8
GRID = [np.float32(0.05), U8(120)]  # of the images
OUT = [np.float32(0.11), U8(100)]


def codes(*shape):
    return RNG.integers(-127, 128, size=shape).astype(I8)


def vector(n):
    return RNG.uniform(0.002, 0.02, size=n).astype(np.float32)


# name: (domain, op, inputs behind the images' codes, attributes, shape of one image)
NODES = {
    "QLinearConv": (
        *("", "QLinearConv", [*GRID, codes(6, 4, 3, 3), vector(6), np.zeros(6, I8), *OUT]),
        *({"pads": [1, 0, 1, 1], "strides": [2, 1]}, (4, 6, 6)),
    ),
    "QLinearConv with bias": (
        *(
            "",
            "QLinearConv",
            [*GRID, codes(6, 4, 3, 3), vector(1)[0], I8(3), *OUT, np.arange(-300, 300, 100, np.int32)],
        ),
        *({}, (4, 6, 6)),
    ),
    "QLinearMatMul": (
        *("", "QLinearMatMul", [*GRID, codes(6, 5), vector(5), np.zeros(5, I8), *OUT]),
        *({}, (6,)),
    ),
    "QGemm": (
        *(MS, "QGemm", [*GRID, codes(5, 6), vector(5), np.zeros(5, I8), np.arange(-200, 300, 100, np.int32), *OUT]),
        *({"transB": 1}, (6,)),
    ),
    "QLinearAdd": (MS, "QLinearAdd", [*GRID, codes(4, 1, 1).view(U8), np.float32(0.03), U8(90), *OUT], {}, (4, 5, 5)),
    "QLinearMul": (MS, "QLinearMul", [*GRID, codes(4, 1, 1).view(U8), np.float32(0.03), U8(90), *OUT], {}, (4, 5, 5)),
    "QLinearSigmoid": (MS, "QLinearSigmoid", [*GRID, np.float32(1 / 256), U8(0)], {}, (4, 5, 5)),
    "QLinearLeakyRelu": (MS, "QLinearLeakyRelu", [*GRID, *OUT], {"alpha": 0.2}, (4, 5, 5)),
    "QLinearGlobalAveragePool": (MS, "QLinearGlobalAveragePool", [*GRID, np.float32(0.01), U8(128)], {}, (4, 5, 5)),
    "QLinearAveragePool": (
        *(MS, "QLinearAveragePool", [*GRID, np.float32(0.041), U8(128)]),
        *({"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, (4, 6, 6)),
    ),
    "QLinearSoftmax": (MS, "QLinearSoftmax", [*GRID, np.float32(1 / 256), U8(0)], {"opset": 13, "axis": -1}, (4, 6)),
}


def integer_graph(tools, domain, op, inputs, attributes, shape):
    """x -> codes -> ``op`` -> real values."""
    names = [f"c{i}" for i in range(len(inputs))]
    out = next((i for i, value in enumerate(inputs) if value is OUT[0]), len(inputs) - 2)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["qx"]),
        helper.make_node(op, ["qx", *names], ["qy"], name="node", domain=domain, **attributes),
        helper.make_node("DequantizeLinear", ["qy", names[out], names[out + 1]], ["y"]),
    ]
    constants = {"xs": GRID[0], "xz": GRID[1], **dict(zip(names, inputs, strict=True))}
    return tools.graph_of(nodes, constants, shape=shape)


@pytest.mark.parametrize(("domain", "op", "inputs", "attributes", "shape"), NODES.values(), ids=NODES)
def test_integer_operator_agrees_up_to_one_code_in_a_hundred(tools, domain, op, inputs, attributes, shape):
    model = integer_graph(tools, domain, op, inputs, attributes, shape)
    x = 2 * tools.images(shape, count=9)
    expected = tools.unoptimised(model, x).reshape(9, -1)
    step = next(
        float(onnx.numpy_helper.to_array(c)) for c in model.graph.initializer if c.name == model.graph.node[2].input[1]
    )
    assert len(np.unique(expected)) > 20
    for mode in ("fast", "exact"):
        steps = abs(OnnxModule(model, mode=mode)(torch.from_numpy(x)).numpy() - expected) / step
        assert steps.max() < 1.01, mode  # ONNX Runtime requantizes with a rounded float32 multiplier
        assert (steps > 0.5).mean() < 0.01, mode


def test_qlinear_concat_agrees(tools):
    names = ["ys", "yz", "qx", "xs", "xz", "k", "ks", "kz"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["qx"]),
        helper.make_node("QLinearConcat", names, ["qy"], domain=MS, axis=0),
        helper.make_node("DequantizeLinear", ["qy", "ys", "yz"], ["y"]),
    ]
    constants = {"xs": GRID[0], "xz": GRID[1], "ys": OUT[0], "yz": OUT[1]}
    constants |= {"k": codes(0, 4).view(U8), "ks": np.float32(0.03), "kz": U8(90)}
    model, x = tools.graph_of(nodes, constants, shape=(4,)), tools.images((4,))
    np.testing.assert_allclose(OnnxModule(model)(torch.from_numpy(x)), tools.unoptimised(model, x), atol=1e-6)


@pytest.mark.parametrize("op", ["ConvInteger", "MatMulInteger"])
def test_integer_sums_agree_exactly(tools, op):
    shape, weight = ((4, 5, 5), codes(6, 4, 3, 3)) if op == "ConvInteger" else ((6,), codes(6, 5))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["qx"]),
        helper.make_node(op, ["qx", "w", "xz", "wz"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["y"], to=TensorProto.FLOAT),
    ]
    model = tools.graph_of(nodes, {"xs": GRID[0], "xz": GRID[1], "w": weight, "wz": I8(0)}, shape=shape)
    x = tools.images(shape)
    expected = tools.unoptimised(model, x).reshape(3, -1)
    for mode in ("fast", "exact"):
        assert np.array_equal(OnnxModule(model, mode=mode)(torch.from_numpy(x)).numpy(), expected)


def test_gradients_pass_through_integer_operators(tools):
    model = integer_graph(tools, *NODES["QLinearConv"])
    x = torch.from_numpy(tools.images((4, 6, 6))).requires_grad_()
    OnnxModule(model)(x).sum().backward()
    assert (x.grad != 0).float().mean() > 0.5


def test_channels_last_is_refused_by_name(tools):
    node = (MS, "QLinearGlobalAveragePool", [*GRID, *OUT], {"channels_last": 1}, (4, 5, 5))
    with pytest.raises(UnsupportedOperatorError, match="QLinearGlobalAveragePool node 'node': channels_last"):
        OnnxModule(integer_graph(tools, *node))
