"""Convolutions, products, pooling and normalisation agree with ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from onnx import helper  # noqa: E402

from rctk_export.onnx_module import OnnxModule  # noqa: E402
from rctk_kernels.errors import UnsupportedOperatorError  # noqa: E402


def weight(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


CONV = {
    "plain": ((4, 7, 8), (6, 4, 3, 3), {}),
    "strides and pads": ((4, 7, 8), (6, 4, 3, 2), {"strides": [2, 1], "pads": [1, 0, 1, 0]}),
    "asymmetric pads": ((4, 7, 8), (6, 4, 3, 3), {"strides": [2, 2], "pads": [0, 1, 1, 2]}),
    "groups": ((4, 7, 8), (6, 2, 3, 3), {"group": 2}),
    "depthwise": ((4, 7, 8), (4, 1, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),
    "dilation": ((4, 7, 8), (6, 4, 3, 3), {"dilations": [2, 3]}),
    "SAME_UPPER": ((4, 7, 8), (6, 4, 4, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "SAME_LOWER": ((4, 7, 8), (6, 4, 4, 3), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    "VALID": ((4, 7, 8), (6, 4, 3, 3), {"auto_pad": "VALID"}),
    "1d": ((4, 9), (6, 4, 3), {"pads": [2, 0]}),
    "3d": ((2, 5, 6, 4), (3, 2, 2, 3, 1), {"strides": [1, 2, 1]}),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("shape", "kernel", "attributes"), CONV.values(), ids=CONV)
def test_conv_agrees(tools, agrees, shape, kernel, attributes, bias):
    constants = [weight(*kernel), *([weight(kernel[0])] if bias else [])]
    agrees(tools.one_node("Conv", *constants, shape=shape, **attributes), tools.images(shape), atol=1e-5)


TRANSPOSED = {
    "plain": ((4, 5, 6), (4, 3, 3, 3), {}),
    "strides": ((4, 5, 6), (4, 3, 3, 2), {"strides": [2, 3]}),
    "pads": ((4, 5, 6), (4, 3, 3, 3), {"strides": [2, 2], "pads": [1, 0, 0, 1]}),
    "output padding": ((4, 5, 6), (4, 3, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 0]}),
    "groups": ((4, 5, 6), (4, 3, 3, 3), {"group": 2, "dilations": [2, 1]}),
    "output shape": ((4, 5, 6), (4, 3, 3, 3), {"strides": [2, 2], "output_shape": [10, 13]}),
    "SAME_UPPER": ((4, 5, 6), (4, 3, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "SAME_LOWER": ((4, 5, 6), (4, 3, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
}


@pytest.mark.parametrize(("shape", "kernel", "attributes"), TRANSPOSED.values(), ids=TRANSPOSED)
def test_transposed_conv_agrees(tools, agrees, shape, kernel, attributes):
    bias = weight(kernel[1] * attributes.get("group", 1))
    agrees(
        tools.one_node("ConvTranspose", weight(*kernel), bias, shape=shape, **attributes),
        tools.images(shape),
        atol=1e-5,
    )


POOL = {
    "plain": {"kernel_shape": [2, 2]},
    "strides": {"kernel_shape": [3, 2], "strides": [2, 2]},
    "pads": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    "asymmetric pads": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]},
    "ceil": {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    "ceil with pads": {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1},
    "ceil at the edge": {"kernel_shape": [2, 2], "strides": [3, 3], "ceil_mode": 1},
    "dilations": {"kernel_shape": [2, 3], "dilations": [2, 2]},
    "SAME_UPPER": {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    "SAME_LOWER": {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
}


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "AveragePool with pads"])
@pytest.mark.parametrize("attributes", POOL.values(), ids=POOL)
def test_pooling_agrees(tools, agrees, op, attributes):
    extra = {"count_include_pad": 1} if op.endswith("pads") else {}
    model = tools.one_node(op.split()[0], shape=(3, 8, 9), **attributes, **extra)
    agrees(model, tools.images((3, 8, 9)) - 2)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("shape", [(3, 9), (2, 5, 6, 4)])
def test_pooling_over_one_or_three_axes_agrees(tools, agrees, op, shape):
    rank = len(shape) - 1
    model = tools.one_node(op, shape=shape, kernel_shape=[2] * rank, strides=[2] * rank, pads=[0] * rank + [1] * rank)
    agrees(model, tools.images(shape))


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pooling_agrees(tools, agrees, op):
    agrees(tools.one_node(op, shape=(3, 8, 9)), tools.images((3, 8, 9)))


GEMM = {
    "plain": ((7, 5), 5, {}),
    "transposed": ((5, 7), 5, {"transB": 1}),
    "scaled": ((7, 5), 5, {"alpha": 0.5, "beta": 2.0}),
    "no bias": ((7, 5), None, {}),
    "one bias for all": ((7, 5), 1, {}),
}


@pytest.mark.parametrize(("shape", "bias", "attributes"), GEMM.values(), ids=GEMM)
def test_gemm_agrees(tools, agrees, shape, bias, attributes):
    constants = [weight(*shape), *([weight(bias)] if bias else [])]
    agrees(tools.one_node("Gemm", *constants, shape=(7,), **attributes), tools.images((7,)))


def test_matmul_agrees(tools, agrees):
    agrees(tools.one_node("MatMul", weight(7, 5), shape=(4, 7)), tools.images((4, 7)))


NORMS = {
    "BatchNormalization": ("BatchNormalization", 20, [weight(4), weight(4), weight(4), abs(weight(4)) + 0.1], {}),
    "eps": ("BatchNormalization", 9, [weight(4), weight(4), weight(4), abs(weight(4))], {"epsilon": 1e-2}),
    "LayerNormalization": ("LayerNormalization", 20, [weight(6), weight(6)], {}),
    "LayerNormalization from 1": ("LayerNormalization", 20, [weight(4, 5, 6), weight(4, 5, 6)], {"axis": 1}),
    "LayerNormalization without bias": ("LayerNormalization", 17, [weight(6)], {"epsilon": 1e-2}),
    "InstanceNormalization": ("InstanceNormalization", 20, [weight(4), weight(4)], {"epsilon": 1e-3}),
    "GroupNormalization per group": ("GroupNormalization", 18, [weight(2), weight(2)], {"num_groups": 2}),
    "GroupNormalization": ("GroupNormalization", 21, [weight(4), weight(4)], {"num_groups": 2}),
    "LRN": ("LRN", 20, [], {"size": 3, "alpha": 0.3, "beta": 0.6, "bias": 1.5}),
}


@pytest.mark.parametrize(("op", "opset", "constants", "attributes"), NORMS.values(), ids=NORMS)
def test_normalisation_agrees(tools, agrees, op, opset, constants, attributes):
    agrees(
        tools.one_node(op, *constants, shape=(4, 5, 6), opset=opset, **attributes), tools.images((4, 5, 6)), atol=1e-5
    )


def test_lrn_of_even_size_looks_one_channel_further_ahead(tools):
    model = tools.one_node("LRN", shape=(3, 1), size=2, alpha=2.0, beta=1.0, bias=1.0)
    logits = OnnxModule(model)(torch.tensor([[[1.0], [2.0], [3.0]]]))
    # alpha / size = 1: 1 / (1 + 1 + 4), 2 / (1 + 4 + 9), 3 / (1 + 9)
    assert logits.tolist() == [pytest.approx([1 / 6, 2 / 14, 3 / 10])]


def test_batchnorm_in_training_mode_is_refused(tools):
    constants = [weight(4), weight(4), weight(4), abs(weight(4))]
    model = tools.one_node("BatchNormalization", *constants, shape=(4, 5, 6), training_mode=1)
    with pytest.raises(UnsupportedOperatorError, match="training mode"):
        OnnxModule(model)


def test_maxpool_with_used_indices_is_refused(tools):
    nodes = [
        helper.make_node("MaxPool", ["x"], ["top", "index"], name="pool", kernel_shape=[2, 2]),
        helper.make_node("Cast", ["index"], ["real"], to=1),
        helper.make_node("Add", ["top", "real"], ["y"]),
    ]
    with pytest.raises(UnsupportedOperatorError, match="MaxPool node 'pool': its output 'index'"):
        OnnxModule(tools.graph_of(nodes, {}, shape=(4, 6, 6)))
