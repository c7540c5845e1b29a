"""Exact mode repeats the reference engine code for code."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from onnx import helper  # noqa: E402

from rctk_export.engine import Source  # noqa: E402
from rctk_export.engines.reference import Reference  # noqa: E402
from rctk_export.input_spec import InputSpec  # noqa: E402
from rctk_export.onnx_module import OnnxModule  # noqa: E402


class Builder:
    """Writes a quantized graph with random grids."""

    def __init__(self, seed, signed):
        self.rng, self.nodes, self.constants = np.random.default_rng(seed), [], {}
        self.kind, self.zeros = (np.int8, (0, 1)) if signed else (np.uint8, (0, 200))

    def add(self, op, *inputs, **attributes):
        out = f"{op}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [out], name=out, **attributes))
        return out

    def constant(self, value):
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name

    def grid(self):
        scale = np.float32(self.rng.uniform(0.01, 0.05))
        return self.constant(scale), self.constant(self.kind(self.rng.integers(*self.zeros)))

    def pair(self, tensor, grid=None):
        grid = grid or self.grid()
        return self.add("DequantizeLinear", self.add("QuantizeLinear", tensor, *grid), *grid)

    def weight(self, *shape, axis=0, kind=np.int8):
        codes = self.rng.integers(-127, 128, size=shape).astype(kind)
        scale = self.rng.uniform(0.001, 0.01, size=shape[axis]).astype(np.float32)
        zeros = np.zeros(shape[axis], kind)
        return self.add("DequantizeLinear", *map(self.constant, (codes, scale, zeros)), axis=axis)

    def bias(self, count):
        codes = self.rng.integers(-3000, 3000, size=count).astype(np.int32)
        scale = self.rng.uniform(1e-4, 1e-3, size=count).astype(np.float32)
        return self.add("DequantizeLinear", self.constant(codes), self.constant(scale), axis=0)


def residual(net):
    """Convolutions, a residual add, a concat of equal grids, pads, pools and a classifier."""
    x = net.pair("x")
    a = net.add("Conv", x, net.weight(6, 3, 3, 3), net.bias(6), pads=[1, 1, 1, 1], strides=[2, 2])
    a = net.pair(net.add("Relu", a))
    b = net.add(
        "Conv",
        a,
        net.weight(6, 1, 3, 3),
        net.constant(net.rng.normal(size=6).astype(np.float32)),
        group=6,
        pads=[0, 2, 2, 0],
    )
    shared = net.grid()
    s = net.pair(net.add("Add", net.pair(b), a), shared)
    p = net.add("MaxPool", s, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 0, 0])
    q = net.pair(net.add("AveragePool", s, kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 1, 1]), shared)
    p = net.add("Slice", p, *map(net.constant, (np.array([0, 0]), np.array([4, 4]), np.array([2, 3]))))
    q = net.add("Slice", q, *map(net.constant, (np.array([0, 0]), np.array([4, 4]), np.array([2, 3]))))
    c = net.add("Concat", p, q, axis=1)
    c = net.add("Pad", c, net.constant(np.array([0, 0, 0, 1, 0, 0, 1, 0])))
    d = net.pair(net.add("Conv", c, net.weight(8, 12, 2, 2)))
    d = net.add("GlobalAveragePool", d)
    d = net.pair(net.add("Reshape", d, net.constant(np.array([0, -1]))))
    w = net.add("Transpose", net.weight(5, 8), perm=[1, 0])
    return net.add("MatMul", d, w)


def dense(net):
    """Gemm with scales of its own, and what stays real between quantizers."""
    x = net.pair(net.add("Sigmoid", net.add("Div", "x", net.constant(np.float32([[[0.2]], [[0.3]], [[0.4]]])))))
    m = net.add("ReduceMean", x, net.constant(np.array([3])), keepdims=0)
    f = net.pair(net.add("Flatten", m))
    h = net.add("Gemm", f, net.weight(7, 24), net.bias(7), transB=1)
    h = net.pair(net.add("HardSwish", h))
    h = net.add("Gemm", h, net.weight(7, 5, axis=1), net.constant(np.ones(5, np.float32)), alpha=0.5, beta=2.0)
    return net.pair(net.add("Softmax", h))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("write", [residual, dense])
@pytest.mark.parametrize("seed", range(4))
def test_every_tensor_equals_that_of_the_reference_engine(tools, tmp_path, write, seed, signed):
    net = Builder(seed, signed)
    net.nodes.append(helper.make_node("Identity", [write(net)], ["y"], name="last"))
    model = tools.graph_of(net.nodes, net.constants, shape=(3, 8, 8))
    onnx.save(model, tmp_path / "m.onnx")
    x = np.random.default_rng(seed).random((6, 3, 8, 8), dtype=np.float32)
    module = OnnxModule(model, mode="exact")
    names = [node.output[0] for node in net.nodes]
    seen = module.observe(torch.from_numpy(x), names)
    source = Source(path=tmp_path / "m.onnx", input=InputSpec(channels=3, height=8, width=8))
    with Reference().open(source) as engine:
        expected = engine.run(x, names)
        assert np.array_equal(module(torch.from_numpy(x)).detach().numpy(), engine.predict(x))
    for name in names:
        codes = np.issubdtype(expected[name].dtype, np.integer)
        assert codes == (seen[name].dtype == torch.int64), name
        if codes or write is residual:  # sums of integers and single float64 operations: not one bit differs
            assert np.array_equal(seen[name].detach().numpy(), expected[name]), name
        else:
            np.testing.assert_allclose(
                seen[name].detach().numpy(), expected[name], rtol=1e-12, atol=1e-12, err_msg=name
            )


def test_a_product_of_codes_is_rounded_once(tools):
    scale_x, scale_w = np.float32(0.1), np.float32(0.3)
    net = Builder(0, signed=True)
    x = net.pair("x", (net.constant(scale_x), net.constant(np.int8(0))))
    w = net.add("DequantizeLinear", net.constant(np.array([[77]], np.int8)), net.constant(scale_w))
    net.nodes.append(helper.make_node("MatMul", [x, w], ["y"]))
    module = OnnxModule(tools.graph_of(net.nodes, net.constants, shape=(1,)), mode="exact")
    codes = torch.arange(1.0, 128)[:, None]
    seen = module.observe(codes * 0.1, ["y"])["y"].tolist()
    sums = [77 * k for k in range(1, 128)]
    exact = [k * Fraction(float(scale_x)) * Fraction(float(scale_w)) for k in sums]
    assert seen == [[float(value)] for value in exact]
    assert seen != [[k * 77 * np.float32(scale_x * scale_w)] for k in range(1, 128)]  # scales multiplied in float32


def test_gradients_pass_through_exact_mode(tools):
    net = Builder(1, signed=False)
    net.nodes.append(helper.make_node("Identity", [residual(net)], ["y"]))
    model = tools.graph_of(net.nodes, net.constants, shape=(3, 8, 8))
    grads = []
    for mode in ("fast", "exact"):
        x = torch.from_numpy(np.random.default_rng(0).random((2, 3, 8, 8), dtype=np.float32)).requires_grad_()
        OnnxModule(model, mode=mode)(x).square().sum().backward()
        grads.append(x.grad)
    assert grads[0].abs().sum() > 0
    assert torch.nn.functional.cosine_similarity(grads[0].flatten(), grads[1].flatten(), dim=0) > 0.99


def test_a_transposed_convolution_sums_codes(tools):
    net = Builder(2, signed=False)
    w = net.weight(4, 3, 3, 3, axis=1)
    y = net.add("ConvTranspose", net.pair("x"), w, net.bias(6), strides=[2, 2], group=2, pads=[1, 0, 0, 1])
    net.nodes.append(helper.make_node("Flatten", [y], ["y"]))
    model, x = tools.graph_of(net.nodes, net.constants, shape=(4, 5, 5)), tools.images((4, 5, 5))
    logits = OnnxModule(model, mode="exact")(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(logits, tools.unoptimised(model, x), rtol=1e-4, atol=1e-4)
