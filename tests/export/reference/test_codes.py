import numpy as np
import pytest

pytest.importorskip("onnx")
from onnx import TensorProto, helper

from rctk_export.engines.reference import Reference

node = helper.make_node


def f32(*values):
    return np.array(values if len(values) > 1 else values[0], dtype=np.float32)


def qdq(name, tensor, axis=None):
    """Q and DQ nodes from ``tensor`` to ``name``; constants ``name_s`` and ``name_z`` hold the grid."""
    extra = {} if axis is None else {"axis": axis}
    grid = [f"{name}_s", f"{name}_z"]
    return [
        node("QuantizeLinear", [tensor, *grid], [f"{name}_q"], **extra),
        node("DequantizeLinear", [f"{name}_q", *grid], [name], **extra),
    ]


def quantized_network(activation, zero, bias_codes):
    """Conv, ReLU, depthwise conv, residual add, pooling, flatten, Gemm; every activation on its own grid."""
    rng = np.random.default_rng(0)
    zero = np.array(zero, dtype=activation)
    nodes, constants = [], {}

    def weight(name, shape, axis=0):
        scale = rng.uniform(0.01, 0.03, shape[axis]).astype(np.float32)
        constants[f"{name}_q"] = rng.integers(-127, 128, shape).astype(np.int8)
        constants[f"{name}_s"], constants[f"{name}_z"] = scale, np.zeros(shape[axis], dtype=np.int8)
        nodes.append(node("DequantizeLinear", [f"{name}_q", f"{name}_s", f"{name}_z"], [name], axis=axis))
        if bias_codes:
            constants[f"{name}_bq"] = rng.integers(-2000, 2000, shape[axis]).astype(np.int32)
            constants[f"{name}_bs"] = (scale * np.float32(0.02)).astype(np.float32)
            nodes.append(node("DequantizeLinear", [f"{name}_bq", f"{name}_bs"], [f"{name}_b"], axis=0))
        else:
            constants[f"{name}_b"] = rng.normal(size=shape[axis]).astype(np.float32)

    def grid(name, tensor, scale):
        constants[f"{name}_s"], constants[f"{name}_z"] = np.float32(scale), zero
        nodes.extend(qdq(name, tensor))

    grid("x", "images", 1 / 255 if zero == 0 and activation == np.uint8 else 1 / 120)
    weight("w1", (8, 3, 3, 3))
    nodes.append(node("Conv", ["x", "w1", "w1_b"], ["c1"], pads=[0, 0, 1, 1], strides=[2, 2]))
    nodes.append(node("Relu", ["c1"], ["r1"]))
    grid("a1", "r1", 0.02)
    weight("w2", (8, 1, 3, 3))
    nodes.append(node("Conv", ["a1", "w2", "w2_b"], ["c2"], pads=[1, 1, 1, 1], group=8))
    grid("a2", "c2", 0.03)
    nodes.append(node("Add", ["a1", "a2"], ["sum"]))
    nodes.append(node("Clip", ["sum", "zero_real", "six"], ["relu6"]))
    constants["zero_real"], constants["six"] = np.float32(0), np.float32(6)
    grid("a3", "relu6", 0.025)
    nodes.append(node("MaxPool", ["a3"], ["m"], kernel_shape=[2, 2], strides=[2, 2]))
    nodes.append(node("AveragePool", ["m"], ["p"], kernel_shape=[2, 2]))
    grid("a4", "p", 0.02)
    nodes.append(node("Flatten", ["a4"], ["f"]))
    weight("w5", (10, 72))
    nodes.append(node("Gemm", ["f", "w5", "w5_b"], ["logits"], transB=1))
    return nodes, constants


@pytest.mark.parametrize(
    ("activation", "zero", "bias_codes"),
    [(np.int8, 0, False), (np.uint8, 128, False), (np.uint8, 31, True), (np.int16, 0, False)],
)
def test_codes_differ_from_unoptimised_onnxruntime_by_one_at_most(save, runtime, images, activation, zero, bias_codes):
    nodes, constants = quantized_network(activation, zero, bias_codes)
    source = save(nodes, constants, shape=(3, 16, 16), opset=21)  # from 21 on also int16
    x = images(64, 3, 16, 16)
    names = ["x_q", "a1_q", "a2_q", "a3_q", "a4_q"]
    theirs = runtime(source, [*names, "logits"], x)
    with Reference().open(source) as engine:
        ours, logits = engine.run(x, names), engine.predict(x)
    for name in names:
        gap = np.abs(ours[name].astype(int) - theirs[name].astype(int))
        assert gap.max() <= 1, name
        assert (gap > 0).mean() < 0.03, name
        assert len(np.unique(theirs[name])) > 20, name  # the grid is in use, so the comparison says something
    assert (logits.argmax(axis=1) == theirs["logits"].argmax(axis=1)).all()
    np.testing.assert_allclose(logits, theirs["logits"], atol=0.5)


def test_signed_codes_and_their_mirror_by_128_give_identical_logits(save, images):
    nodes, constants = quantized_network(np.int8, 0, bias_codes=False)
    mirror = {
        name: np.array(128, dtype=np.uint8) if name in {"x_z", "a1_z", "a2_z", "a3_z", "a4_z"} else value
        for name, value in constants.items()
    }
    x = images(16, 3, 16, 16)
    with (
        Reference().open(save(nodes, constants, shape=(3, 16, 16))) as signed,
        Reference().open(save(nodes, mirror, shape=(3, 16, 16))) as unsigned,
    ):
        assert np.array_equal(signed.predict(x), unsigned.predict(x))
        left, right = signed.run(x, ["a3_q"])["a3_q"], unsigned.run(x, ["a3_q"])["a3_q"]
    assert np.array_equal(left.astype(int) + 128, right.astype(int))


INDICES = {
    "two": np.array(2),
    "zero": np.array([0]),
    "axis2": np.array([2]),
    "axis3": np.array([-1]),
    "axes23": np.array([2, -1]),
    "pads2": np.array([1, 2, 2, 1]),
    "half": f32(0.5),
}
MOVES = {
    "reshape": [node("Reshape", ["x", "shape"], ["y"])],
    "transpose": [node("Transpose", ["x"], ["y"], perm=[0, 2, 3, 1])],
    "slice": [node("Slice", ["x", "zero", "axis2", "axis3"], ["y"])],
    "gather": [node("Gather", ["x", "two"], ["y"], axis=2)],
    "unsqueeze": [node("Unsqueeze", ["x", "zero"], ["y"])],
    "pool": [node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])],
    "pad": [node("Pad", ["x", "pads2", "", "axes23"], ["y"])],
    "pad copies": [node("Pad", ["x", "pads2", "", "axes23"], ["y"], mode="reflect")],
    "concat": [node("Identity", ["x"], ["i"]), node("Concat", ["x", "i"], ["y"], axis=1)],
    "flatten": [node("Flatten", ["x"], ["f"]), node("Dropout", ["f"], ["y"])],
}


@pytest.mark.parametrize("nodes", MOVES.values(), ids=MOVES)
def test_what_only_moves_values_leaves_codes_as_codes(save, runtime, images, nodes):
    constants = {**INDICES, "x_s": f32(0.01), "x_z": np.uint8(9), "shape": np.array([0, -1])}
    used = {name for item in nodes for name in item.input} | {"x_s", "x_z"}
    constants = {name: value for name, value in constants.items() if name in used}
    all_nodes = [*qdq("x", "images"), *nodes, node("Identity", ["y"], ["logits"])]
    source, x = save(all_nodes, constants, shape=(4, 6, 5)), images(2, 4, 6, 5)
    with Reference().open(source) as engine:
        codes = engine.run(x, ["y"])["y"]
    real = runtime(source, ["y"], x)["y"]
    assert codes.dtype == np.uint8
    np.testing.assert_allclose((codes.astype(int) - 9) * 0.01, real, atol=1e-6)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Pad", ["x", "pads2", "half", "axes23"], ["y"])],
        [*qdq("other", "images"), node("Concat", ["x", "other"], ["y"], axis=1)],
        [node("Relu", ["x"], ["y"])],
    ],
)
def test_what_leaves_the_grid_becomes_real(agrees, nodes):
    grids = {"x_s": f32(0.01), "x_z": np.uint8(9), "other_s": f32(0.02), "other_z": np.uint8(9)}
    constants = {**{name: INDICES[name] for name in ("pads2", "half", "axes23")}, **grids}
    all_nodes = [*qdq("x", "images"), *nodes, node("Identity", ["y"], ["logits"])]
    agrees(all_nodes, constants, names=["y"])


def test_float_weights_behind_q_and_dq_are_integers_too(save, images):
    nodes = [
        *qdq("x", "images"),
        *qdq("w", "weight", axis=0),
        node("Transpose", ["w"], ["wt"], perm=[1, 0]),
        node("Flatten", ["x"], ["f"]),
        node("MatMul", ["f", "wt"], ["logits"]),
    ]
    weight = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    grid = {"w_s": f32(0.02, 0.03, 0.01), "w_z": np.zeros(3, dtype=np.int8)}
    constants = {"x_s": f32(0.01), "x_z": np.int8(0), "weight": weight, **grid}
    source, x = save(nodes, constants), images(5, 1, 2, 2)
    with Reference().open(source) as engine:
        parts = engine.run(x, ["x_q", "w_q", "wt", "logits"])
    assert parts["wt"].dtype == np.int8
    sums = parts["x_q"].reshape(5, 4).astype(int) @ parts["w_q"].astype(int).T
    scale = np.float64(np.float32(0.01)) * grid["w_s"].astype(np.float64)
    assert np.array_equal(parts["logits"], sums * scale)


def test_sums_meet_the_float64_product_of_the_scales(save, images):
    nodes = [
        *qdq("x", "images"),
        node("DequantizeLinear", ["w_q", "w_s"], ["w"], axis=0),
        node("Conv", ["x", "w"], ["y"]),
        node("AveragePool", ["x"], ["p"], kernel_shape=[3, 1]),
        node("Flatten", ["y"], ["logits"]),
    ]
    weight = np.random.default_rng(0).integers(-127, 128, (5, 2, 1, 1)).astype(np.int8)
    scale = f32(0.1, 0.3, 0.7, 0.013, 0.9)
    constants = {"x_s": f32(0.0123), "x_z": np.uint8(7), "w_q": weight, "w_s": scale}
    source, x = save(nodes, constants, shape=(2, 3, 4)), images(6, 2, 3, 4)
    with Reference().open(source) as engine:
        values = engine.run(x, ["x_q", "y", "p"])
    centred, step = values["x_q"].astype(int) - 7, np.float64(np.float32(0.0123))
    sums = np.einsum("nchw,oc->nohw", centred, weight[:, :, 0, 0].astype(int))
    assert np.array_equal(values["y"], sums * (step * scale.astype(np.float64)).reshape(-1, 1, 1))
    assert np.array_equal(values["p"], centred.sum(axis=2, keepdims=True) * step / 3)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("DequantizeLinear", ["k_q", "two_s"], ["k"], axis=1), node("Conv", ["x", "k"], ["y"], group=2)],
        [node("DequantizeLinear", ["m_q", "five_s"], ["m"], axis=0), node("MatMul", ["x", "m"], ["y"])],
        [node("DequantizeLinear", ["x_q", "four_s", "four_z"], ["a"]), node("MatMul", ["a", "m_r"], ["y"])],
        [
            node("DequantizeLinear", ["x_q", "four_s", "four_z"], ["a"]),
            node("Pad", ["a", "pads2", "", "axes23"], ["y"]),
        ],
        [node("DequantizeLinear", ["x_q", "four_s", "four_z"], ["a"]), node("Reshape", ["a", "shape"], ["y"])],
        [
            node("DequantizeLinear", ["x_q", "four_s", "four_z"], ["a"], axis=-3),
            node("GlobalAveragePool", ["a"], ["y"]),
        ],
    ],
)
def test_scales_that_vary_where_codes_cannot_follow_give_real_values(agrees, nodes):
    rng = np.random.default_rng(0)
    constants = {
        **INDICES,
        "x_s": f32(0.01),
        "x_z": np.uint8(9),
        "k_q": rng.integers(-127, 128, (6, 2, 3, 3)).astype(np.int8),
        "m_q": rng.integers(-127, 128, (5, 3)).astype(np.int8),
        "m_r": rng.normal(size=(5, 3)).astype(np.float32),
        "two_s": f32(0.01, 0.02),
        "four_s": f32(0.01, 0.02, 0.03, 0.04),
        "four_z": np.array([0, 9, 50, 100], dtype=np.uint8),
        "five_s": f32(0.01, 0.02, 0.03, 0.04, 0.05),
        "shape": np.array([0, -1]),
    }
    agrees([*qdq("x", "images"), *nodes, node("Identity", ["y"], ["logits"])], constants, names=["y"])


def test_four_bit_codes_are_clipped_to_four_bits(save):
    zero = helper.make_tensor("x_z", TensorProto.INT4, [], [0])
    nodes = [*qdq("x", "images"), node("Flatten", ["x"], ["logits"])]
    source = save(nodes, {"x_s": f32(0.1), "x_z": zero}, opset=21)
    x = f32([-2, -0.35, 0.25, 2]).reshape(1, 1, 2, 2)
    with Reference().open(source) as engine:
        assert engine.run(x, ["x_q"])["x_q"].ravel().tolist() == [-8, -3, 2, 7]  # 0.35 / float32(0.1) < 3.5
