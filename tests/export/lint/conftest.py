"""A small residual classifier in the form that each target wants, written node by node."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


@dataclass
class Sketch:
    """A model under construction; edits by name keep the tests short."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    opset: int = 20
    domains: tuple[str, ...] = ()

    def op(self, kind, inputs, output, **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def pair(self, tensor, scale, zero, axis=None):
        """Put Q and DQ named ``TENSOR.q`` and ``TENSOR.dq`` behind ``tensor``."""
        self.arrays[f"{tensor}.scale"], self.arrays[f"{tensor}.zero"] = np.asarray(scale, np.float32), np.asarray(zero)
        names, axes = [f"{tensor}.scale", f"{tensor}.zero"], {} if axis is None else {"axis": axis}
        self.op("QuantizeLinear", [tensor, *names], f"{tensor}.q", **axes)
        return self.op("DequantizeLinear", [f"{tensor}.q", *names], f"{tensor}.dq", **axes)

    def codes(self, name, codes, scale, axis=0):
        """Store codes with a DQ ``NAME.dq`` behind them."""
        self.arrays[name], self.arrays[f"{name}.scale"] = codes, np.asarray(scale, np.float32)
        self.arrays[f"{name}.zero"] = np.zeros(np.shape(scale), codes.dtype)
        return self.op("DequantizeLinear", [name, f"{name}.scale", f"{name}.zero"], f"{name}.dq", axis=axis)

    def node(self, name):
        return next(node for node in self.nodes if node.name == name)

    def rewire(self, name, slot, tensor):
        self.node(name).input[slot] = tensor

    def before(self, name, *nodes):
        at = self.nodes.index(self.node(name))
        self.nodes[at:at] = nodes

    def model(self):
        domains = [helper.make_opsetid(domain, 1) for domain in self.domains]
        return helper.make_model(
            helper.make_graph(
                self.nodes,
                "sketch",
                [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 8])],
                [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 5])],
                [numpy_helper.from_array(value, name) for name, value in self.arrays.items()],
            ),
            opset_imports=[helper.make_opsetid("", self.opset), *domains],
            ir_version=10,
        )


def int8(rng, *shape):
    return rng.integers(-127, 128, shape).astype(np.int8)


def tensorrt(zero):
    """One residual block; only the skip of its add is quantized and biases are float."""
    rng, s = np.random.default_rng(0), Sketch()
    x = s.pair("images", 1 / 127, zero)
    s.arrays |= {"b1": rng.normal(size=4).astype(np.float32), "b2": rng.normal(size=4).astype(np.float32)}
    w1, w2 = (s.codes(n, int8(rng, 4, i, 3, 3), np.full(4, 0.002)) for n, i in (("w1", 3), ("w2", 4)))
    s.op("Relu", [s.op("Conv", [x, w1, "b1"], "conv1", pads=[1, 1, 1, 1])], "act1")
    a = s.pair("act1", 0.02, zero)
    s.op("Add", [s.op("Conv", [a, w2, "b2"], "conv2", pads=[1, 1, 1, 1]), a], "sum")
    s.op("Relu", ["sum"], "act2")
    s.op("GlobalAveragePool", [s.pair("act2", 0.03, zero)], "pool")
    s.op("Flatten", ["pool"], "flat")
    s.op("Gemm", [s.pair("flat", 0.02, zero), s.codes("w3", int8(rng, 5, 4), np.full(5, 0.003))], "logits", transB=1)
    return s


def cpu():
    """The same block with everything between layers quantized to uint8, and int32 biases."""
    rng, s, u8 = np.random.default_rng(0), Sketch(), np.uint8(0)
    x = s.pair("images", 1 / 255, u8)
    w1, w2 = (s.codes(n, int8(rng, 4, i, 3, 3), np.full(4, 0.002)) for n, i in (("w1", 3), ("w2", 4)))
    bias = rng.integers(-99, 99, 4).astype(np.int32)
    b1 = s.codes("b1", bias, np.float32(1 / 255) * np.full(4, 0.002, np.float32))
    b2 = s.codes("b2", bias, np.float32(0.02) * np.full(4, 0.002, np.float32))
    s.op("Relu", [s.op("Conv", [x, w1, b1], "conv1", pads=[1, 1, 1, 1])], "act1")
    a = s.pair("act1", 0.02, u8)
    s.op("Conv", [a, w2, b2], "conv2", pads=[1, 1, 1, 1])
    s.op("Add", [s.pair("conv2", 0.02, np.uint8(120)), a], "sum")
    s.op("Relu", ["sum"], "act2")
    s.op("GlobalAveragePool", [s.pair("act2", 0.03, u8)], "pool")
    s.op("Flatten", [s.pair("pool", 0.03, u8)], "flat")
    s.op("Gemm", [s.pair("flat", 0.03, u8), s.codes("w3", int8(rng, 5, 4), np.full(5, 0.003))], "logits", transB=1)
    return s


def openvino():
    """The block of ``cpu`` with a convolution as its skip; what the other one gives to the add is float."""
    rng, s = np.random.default_rng(1), cpu()
    at, end = Sketch(arrays=s.arrays), s.nodes.index(s.node("conv2.q"))
    w0 = at.codes("w0", int8(rng, 4, 3, 1, 1), np.full(4, 0.002))
    at.op("Conv", ["images.dq", w0], "conv0")
    skip = at.pair("conv0", 0.03, np.uint8(120))
    s.nodes[end : end + 2] = at.nodes
    s.rewire("sum", 0, "conv2")
    s.rewire("sum", 1, skip)
    return s


@pytest.fixture
def sketch():
    """Return a builder of the good model for a target."""
    return {
        "tensorrt": lambda: tensorrt(np.int8(0)),
        "cpu-mirror": lambda: tensorrt(np.uint8(128)),
        "cpu": cpu,
        "openvino": openvino,
    }.__getitem__
