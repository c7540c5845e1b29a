import numpy as np
import pytest

from rctk_export.engine import Source
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import EngineError, GraphError, QuantizationError, UnsupportedOperatorError

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from rctk_export.engines.reference import Reference  # noqa: E402

node = helper.make_node


def save(path, nodes, constants, shape=(1, 2, 2), output="logits", opset=20):
    """Write a graph of one input ``images`` and one output."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [
            value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value), name)
            for name, value in constants.items()
        ],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.example", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)
    channels, height, width = shape
    return Source(path=path, input=InputSpec(channels=channels, height=height, width=width))


def runtime(source, names, images):
    """Run ONNX Runtime unoptimised and return any tensors by name."""
    model = onnx.load(source.path)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(list(names), {"images": images}), strict=True))


def images(count, *shape, seed=0):
    return np.random.default_rng(seed).random((count, *shape), dtype=np.float32)


def f32(*values):
    return np.array(values if len(values) > 1 else values[0], dtype=np.float32)


def qdq(name, tensor, kind, axis=None):
    """Q and DQ nodes from ``tensor`` to ``name``; constants ``name_s`` and ``name_z`` hold the grid."""
    extra = {} if axis is None else {"axis": axis}
    grid = [f"{name}_s", f"{name}_z"]
    return [
        node("QuantizeLinear", [tensor, *grid], [f"{name}_q"], **extra),
        node("DequantizeLinear", [f"{name}_q", *grid], [name], **extra),
    ]


# --- worked by hand -------------------------------------------------------------------------------------------------


def test_a_1x1_network_worked_by_hand(tmp_path):
    nodes = [
        *qdq("x", "images", "u8"),
        node("DequantizeLinear", ["w_q", "w_s"], ["w"], axis=0),
        node("DequantizeLinear", ["b_q", "b_s"], ["b"], axis=0),
        node("Conv", ["x", "w", "b"], ["y"]),
        *qdq("yq", "y", "i8"),
        node("Flatten", ["yq"], ["logits"]),
    ]
    constants = {
        "x_s": f32(0.25),
        "x_z": np.uint8(2),
        "w_q": np.array([3, -2], dtype=np.int8).reshape(2, 1, 1, 1),
        "w_s": f32(0.5, 1),
        "b_q": np.array([8, -4], dtype=np.int32),
        "b_s": f32(0.125, 0.25),
        "yq_s": f32(0.5),
        "yq_z": np.int8(-1),
    }
    source = save(tmp_path / "m.onnx", nodes, constants, shape=(1, 1, 1))
    x = f32([0.625, 1.0]).reshape(2, 1, 1, 1)
    with Reference().open(source) as engine:
        values = engine.run(x, ["x_q", "x", "y", "yq_q", "logits"])
        logits = engine.predict(x)
    # 0.625 / 0.25 = 2.5 rounds to 2, plus 2; 1 / 0.25 = 4, plus 2
    assert values["x_q"].ravel().tolist() == [4, 6]
    assert values["x"].ravel().tolist() == [4, 6]
    # channel 0: (q - 2) * 3 * 0.125 + 1; channel 1: (q - 2) * -2 * 0.25 - 1
    assert values["y"].ravel().tolist() == [1.75, -2.0, 2.5, -3.0]
    # 3.5 and -4, 5 and -6, ties to even, minus 1
    assert values["yq_q"].ravel().tolist() == [3, -5, 4, -7]
    assert logits.tolist() == [[2.0, -2.0], [2.5, -3.0]]


def test_a_3x3_convolution_pads_with_real_zero(tmp_path):
    nodes = [
        *qdq("x", "images", "u8"),
        node("DequantizeLinear", ["w_q", "w_s"], ["w"]),
        node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["y"], ["p"]),
        node("Flatten", ["p"], ["logits"]),
    ]
    w = np.arange(1, 10, dtype=np.int8).reshape(1, 1, 3, 3)
    constants = {"x_s": f32(0.5), "x_z": np.uint8(100), "w_q": w, "w_s": f32(1)}
    source = save(tmp_path / "m.onnx", nodes, constants)
    x = f32([0.5, 0, 0, 0]).reshape(1, 1, 2, 2)  # one code above zero, in the upper left corner
    with Reference().open(source) as engine:
        y = engine.run(x, ["y"])["y"]
        assert engine.predict(x).tolist() == [[(5 + 4 + 2 + 1) / 2 / 4]]
    # the tap that meets the corner: 5 at the corner itself, then 4, 2 and 1 as the window moves right and down
    assert y[0, 0].tolist() == [[2.5, 2.0], [1.0, 0.5]]


def test_an_average_of_codes_is_summed_before_it_is_scaled(tmp_path):
    nodes = [*qdq("x", "images", "u8"), node("ReduceMean", ["x", "axes"], ["logits"], keepdims=0)]
    constants = {"x_s": f32(0.1), "x_z": np.uint8(7), "axes": np.array([2, 3])}
    source = save(tmp_path / "m.onnx", nodes, constants, shape=(1, 1, 3))
    x = f32([0.1, 0.1, 0.1]).reshape(1, 1, 1, 3)
    with Reference().open(source) as engine:
        value = engine.run(x, ["logits"])["logits"].item()
    scale = float(np.float32(0.1))
    assert value == 3 * scale / 3
    assert engine.run(x, ["x_q"])["x_q"].tolist() == [[[[8, 8, 8]]]]


# --- single operators against ONNX Runtime --------------------------------------------------------------------------

SHAPE = (4, 6, 5)
I64 = np.int64
PARAMETERS = {
    "scale": f32(1, 2, 0.5, -1),
    "shift": f32(0, 1, -1, 0.5),
    "mean": f32(0.1, 0.2, 0.3, 0.4),
    "var": f32(1, 0.5, 2, 1.5),
    "slope": f32([0.1, 0.2, 0.3, 0.4]).reshape(4, 1, 1),
    "half": f32(0.5),
    "third": f32([0.3]),
    "centre": f32(-0.5),
}
OPERATORS = {
    "abs": (["Sub", "Abs"], {}),
    **{op.lower(): ([op], {}) for op in ["Exp", "Neg", "Sqrt", "Sigmoid", "Tanh", "Erf", "Floor", "Ceil", "Round"]},
    **{
        op.lower(): (["Sub", op], {})
        for op in (
            *("Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Softplus", "Softsign", "HardSigmoid", "HardSwish"),
            *("Mish", "Gelu", "Sign", "ThresholdedRelu", "Softmax", "LogSoftmax"),
        )
    },
    "gelu-tanh": (["Sub", "Gelu"], {"approximate": "tanh"}),
    "softmax-axis": (["Softmax"], {"axis": 1}),
    "depth": (["Transpose"], {"perm": [0, 3, 1, 2]}),
    "flip": (["Transpose"], {}),
    "gap": (["GlobalAveragePool"], {}),
    "gmp": (["GlobalMaxPool"], {}),
    "max": (["MaxPool"], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}),
    "max-ceil": (["MaxPool"], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    "max-same": (["MaxPool"], {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "average": (["AveragePool"], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "average-all": (["AveragePool"], {"kernel_shape": [2, 3], "pads": [1, 1, 0, 1], "count_include_pad": 1}),
    "average-ceil": (["AveragePool"], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    "flatten": (["Flatten"], {"axis": 2}),
}


@pytest.mark.parametrize(("ops", "attributes"), OPERATORS.values(), ids=OPERATORS)
def test_an_operator_of_one_tensor_agrees_with_onnxruntime(tmp_path, ops, attributes):
    first, second = ops[0], ops[-1]
    nodes = [node("Sub", ["images", "half"], ["centred"])] if first == "Sub" else []
    nodes += [node(second, ["centred" if nodes else "images"], ["logits"], **attributes)]
    agrees(tmp_path, nodes, PARAMETERS)


def agrees(tmp_path, nodes, constants, names=("logits",), shape=SHAPE, opset=20):
    source, x = save(tmp_path / "m.onnx", nodes, constants, shape=shape, opset=opset), images(3, *shape)
    with Reference().open(source) as engine:
        ours = engine.run(x, names)
    for name, value in runtime(source, names, x).items():
        assert ours[name].shape == value.shape, name
        np.testing.assert_allclose(ours[name], value, rtol=2e-5, atol=2e-6, err_msg=name)


GRID = np.random.default_rng(3).uniform(-1.3, 1.3, (3, 4, 5, 2)).astype(np.float32)
CHAINS = {
    "prelu": [node("Sub", ["images", "half"], ["c"]), node("PRelu", ["c", "slope"], ["logits"])],
    "batchnorm": [node("BatchNormalization", ["images", "scale", "shift", "mean", "var"], ["logits"], epsilon=1e-3)],
    "instancenorm": [node("InstanceNormalization", ["images", "scale", "shift"], ["logits"])],
    "layernorm": [node("LayerNormalization", ["images", "gain5", "gain5"], ["logits"], axis=-1)],
    "arithmetic": [
        node("Mul", ["images", "slope"], ["a"]),
        node("Div", ["a", "third"], ["b"]),
        node("Pow", ["b", "third"], ["c"]),
        node("Add", ["c", "images"], ["d"]),
        node("Max", ["d", "half"], ["e"]),
        node("Min", ["e", "slope", "images"], ["f"]),
        node("Sum", ["f", "e", "d"], ["g"]),
        node("Log", ["g"], ["h"]),
        node("Reciprocal", ["h"], ["logits"]),
    ],
    "clip": [node("Clip", ["images", "third_0", "half"], ["a"]), node("Clip", ["a", "", "half"], ["logits"])],
    "select": [node("Greater", ["images", "half"], ["m"]), node("Where", ["m", "images", "slope"], ["logits"])],
    "shapes": [
        node("Shape", ["images"], ["s"], start=0, end=2),
        node("Constant", [], ["rest"], value_ints=[30]),
        node("Concat", ["s", "rest"], ["t"], axis=0),
        node("Reshape", ["images", "t"], ["logits"]),
    ],
    "shape arithmetic": [
        node("Shape", ["images"], ["s"]),
        node("Gather", ["s", "two"], ["h"]),
        node("Div", ["h", "four"], ["quarter"]),
        node("Mul", ["quarter", "four"], ["length"]),
        node("Unsqueeze", ["length", "zero"], ["end"]),
        node("Slice", ["images", "zero", "end", "axis2"], ["logits"]),
    ],
    "backwards": [node("Slice", ["images", "last", "before", "axis3", "step"], ["logits"])],
    "gather": [node("Gather", ["images", "some"], ["logits"], axis=-1)],
    "split": [node("Split", ["images", "parts"], ["a", "b"], axis=1), node("Concat", ["b", "a"], ["logits"], axis=-3)],
    "even split": [
        node("Split", ["images"], ["a", "b"], axis=2, num_outputs=2),
        node("Sub", ["a", "b"], ["logits"]),
    ],
    "pad": [node("Pad", ["images", "pads", "half"], ["logits"])],
    "pad some": [node("Pad", ["images", "pads2", "", "axes23"], ["logits"], mode="reflect")],
    "pad edge": [node("Pad", ["images", "pads2", "", "axes23"], ["logits"], mode="edge")],
    "squeeze": [node("ReduceMax", ["images", "axes23"], ["a"]), node("Squeeze", ["a", "axes23"], ["logits"])],
    "reductions": [
        node("ReduceSum", ["images", "axes23"], ["a"]),
        node("ReduceL2", ["images", "axes23"], ["b"]),
        node("ReduceMin", ["images", "axes23"], ["c"]),
        node("ReduceMean", ["images", "axes23"], ["d"]),
        node("ReduceSumSquare", ["images", "axes23"], ["e"]),
        node("ReduceMean", ["images"], ["f"], keepdims=0),
        node("Sum", ["a", "b", "c", "d", "e", "f"], ["logits"]),
    ],
    "expand": [node("Expand", ["images", "big"], ["a"]), node("Tile", ["a", "twice"], ["logits"])],
    "constant of shape": [
        node("Shape", ["images"], ["s"]),
        node("ConstantOfShape", ["s"], ["o"], value=numpy_helper.from_array(f32([2.5]))),
        node("Mul", ["o", "images"], ["logits"]),
    ],
    "cast": [
        node("Cast", ["images"], ["i"], to=TensorProto.INT64),
        node("Range", ["zero_d", "five_d", "one_d"], ["r"]),
        node("Add", ["i", "r"], ["k"]),
        node("Mod", ["k", "three_d"], ["m"]),
        node("CastLike", ["m", "images"], ["logits"]),
    ],
    "einsum": [node("Einsum", ["images", "gain5"], ["logits"], equation="nchw,w->nch")],
    "matmul": [node("MatMul", ["images", "matrix"], ["logits"])],
    "gemm": [
        node("Flatten", ["images"], ["a"]),
        node("Gemm", ["a", "weight", "scale"], ["logits"], transB=1, alpha=0.5, beta=2.0),
    ],
    "conv": [node("Conv", ["images", "kernel", "bias6"], ["logits"], group=2, strides=[2, 1], pads=[0, 1, 2, 0])],
    "dilated": [node("Conv", ["images", "kernel"], ["logits"], group=2, dilations=[2, 1], pads=[1, 0, 0, 1])],
    **{
        f"conv {pad}": [node("Conv", ["images", "kernel"], ["logits"], group=2, strides=[2, 3], auto_pad=pad)]
        for pad in ("SAME_LOWER", "SAME_UPPER", "VALID")
    },
    "gather nd": [node("GatherND", ["images", "corners"], ["logits"])],
    "gather nd per image": [node("GatherND", ["images", "places"], ["logits"], batch_dims=1)],
    "dropout": [node("Dropout", ["images"], ["logits"])],
    **{
        f"sample {mode} {outside} {align}": [
            node("GridSample", ["images", "grid"], ["logits"], mode=mode, padding_mode=outside, align_corners=align)
        ]
        for mode in ("linear", "nearest")
        for outside in ("zeros", "border")
        for align in (0, 1)
    },
    **{
        f"affine grid {align}": [node("AffineGrid", ["theta", "size"], ["logits"], align_corners=align)]
        for align in (0, 1)
    },
    **{
        f"resize {mode} {way} {rounding}": [
            node(
                "Resize",
                ["images", "", "scales"],
                ["logits"],
                mode=mode,
                coordinate_transformation_mode=way,
                nearest_mode=rounding,
            )
        ]
        for mode, way, rounding in [
            ("nearest", "asymmetric", "floor"),
            ("nearest", "half_pixel", "round_prefer_floor"),
            ("nearest", "half_pixel", "round_prefer_ceil"),
            ("nearest", "align_corners", "ceil"),
            ("linear", "half_pixel", "floor"),
            ("linear", "align_corners", "floor"),
            ("linear", "pytorch_half_pixel", "floor"),
        ]
    },
    "resize to size": [node("Resize", ["images", "", "", "sizes"], ["logits"], mode="linear", axes=[2, 3])],
}
MORE = {
    **PARAMETERS,
    "gain5": f32(1, 2, 3, 4, 5),
    "third_0": f32(0.3),
    "two": I64(2),
    "four": I64(4),
    "zero": np.array([0]),
    "axis2": np.array([2]),
    "axis3": np.array([-1]),
    "last": np.array([-1]),
    "before": np.array([np.iinfo(I64).min]),
    "step": np.array([-2]),
    "some": np.array([[3, 0], [-1, 1]]),
    "parts": np.array([1, 3]),
    "pads": np.array([0, 1, 0, 2, 0, 0, 1, -1]),
    "pads2": np.array([1, 2, 2, 1]),
    "axes23": np.array([2, -1]),
    "big": np.array([2, 1, 1, 1, 1]),
    "twice": np.array([1, 1, 2, 1, 2]),
    "zero_d": I64(0),
    "one_d": I64(1),
    "five_d": I64(5),
    "three_d": I64(3),
    "matrix": np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3),
    "weight": np.linspace(-1, 1, 480, dtype=np.float32).reshape(4, 120),
    "kernel": np.linspace(-1, 1, 108, dtype=np.float32).reshape(6, 2, 3, 3),
    "bias6": np.arange(6, dtype=np.float32),
    "grid": GRID,
    "theta": np.random.default_rng(4).normal(size=(3, 2, 3)).astype(np.float32),
    "size": np.array([3, 4, 5, 7]),
    "corners": np.array([[0, 0], [1, 3], [2, -1]]),
    "places": np.array([[[0, 5, 0]], [[3, 0, -1]], [[2, 2, 2]]]),
    "scales": f32(1, 1, 1.5, 0.6),  # 1.5 is exact in float32, so half way means the same to both
    "sizes": np.array([9, 3]),
}


@pytest.mark.parametrize("nodes", CHAINS.values(), ids=CHAINS)
def test_a_chain_of_operators_agrees_with_onnxruntime(tmp_path, nodes):
    used = {name for item in nodes for name in item.input}
    agrees(tmp_path, nodes, {name: value for name, value in MORE.items() if name in used})


def test_group_normalization_agrees_with_onnxruntime(tmp_path):
    nodes = [node("GroupNormalization", ["images", "scale", "shift"], ["logits"], num_groups=2)]
    agrees(tmp_path, nodes, PARAMETERS, opset=21)


# --- codes ----------------------------------------------------------------------------------------------------------


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
        nodes.extend(qdq(name, tensor, activation))

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
def test_codes_differ_from_unoptimised_onnxruntime_by_one_at_most(tmp_path, activation, zero, bias_codes):
    nodes, constants = quantized_network(activation, zero, bias_codes)
    source = save(tmp_path / "m.onnx", nodes, constants, shape=(3, 16, 16), opset=21)  # from 21 on also int16
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


def test_signed_codes_and_their_mirror_by_128_give_identical_logits(tmp_path):
    nodes, constants = quantized_network(np.int8, 0, bias_codes=False)
    mirror = {
        name: np.array(128, dtype=np.uint8) if name in {"x_z", "a1_z", "a2_z", "a3_z", "a4_z"} else value
        for name, value in constants.items()
    }
    x = images(16, 3, 16, 16)
    with (
        Reference().open(save(tmp_path / "s.onnx", nodes, constants, shape=(3, 16, 16))) as signed,
        Reference().open(save(tmp_path / "u.onnx", nodes, mirror, shape=(3, 16, 16))) as unsigned,
    ):
        assert np.array_equal(signed.predict(x), unsigned.predict(x))
        left, right = signed.run(x, ["a3_q"])["a3_q"], unsigned.run(x, ["a3_q"])["a3_q"]
    assert np.array_equal(left.astype(int) + 128, right.astype(int))


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
def test_what_only_moves_values_leaves_codes_as_codes(tmp_path, nodes):
    constants = {**MORE, "x_s": f32(0.01), "x_z": np.uint8(9), "shape": np.array([0, -1])}
    used = {name for item in nodes for name in item.input} | {"x_s", "x_z"}
    constants = {name: value for name, value in constants.items() if name in used}
    all_nodes = [*qdq("x", "images", "u8"), *nodes, node("Identity", ["y"], ["logits"])]
    source, x = save(tmp_path / "m.onnx", all_nodes, constants, shape=SHAPE), images(2, *SHAPE)
    with Reference().open(source) as engine:
        codes = engine.run(x, ["y"])["y"]
    real = runtime(source, ["y"], x)["y"]
    assert codes.dtype == np.uint8
    np.testing.assert_allclose((codes.astype(int) - 9) * 0.01, real, atol=1e-6)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Pad", ["x", "pads2", "half", "axes23"], ["y"])],
        [*qdq("other", "images", "u8"), node("Concat", ["x", "other"], ["y"], axis=1)],
        [node("Relu", ["x"], ["y"])],
    ],
)
def test_what_leaves_the_grid_becomes_real(tmp_path, nodes):
    grids = {"x_s": f32(0.01), "x_z": np.uint8(9), "other_s": f32(0.02), "other_z": np.uint8(9)}
    constants = {**{name: MORE[name] for name in ("pads2", "half", "axes23")}, **grids}
    all_nodes = [*qdq("x", "images", "u8"), *nodes, node("Identity", ["y"], ["logits"])]
    agrees(tmp_path, all_nodes, constants, names=["y"])


def test_float_weights_behind_q_and_dq_are_integers_too(tmp_path):
    nodes = [
        *qdq("x", "images", "i8"),
        *qdq("w", "weight", "i8", axis=0),
        node("Transpose", ["w"], ["wt"], perm=[1, 0]),
        node("Flatten", ["x"], ["f"]),
        node("MatMul", ["f", "wt"], ["logits"]),
    ]
    weight = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    grid = {"w_s": f32(0.02, 0.03, 0.01), "w_z": np.zeros(3, dtype=np.int8)}
    constants = {"x_s": f32(0.01), "x_z": np.int8(0), "weight": weight, **grid}
    source, x = save(tmp_path / "m.onnx", nodes, constants), images(5, 1, 2, 2)
    with Reference().open(source) as engine:
        parts = engine.run(x, ["x_q", "w_q", "wt", "logits"])
    assert parts["wt"].dtype == np.int8
    sums = parts["x_q"].reshape(5, 4).astype(int) @ parts["w_q"].astype(int).T
    scale = np.float64(np.float32(0.01)) * grid["w_s"].astype(np.float64)
    assert np.array_equal(parts["logits"], sums * scale)


def test_four_bit_codes_are_clipped_to_four_bits(tmp_path):
    zero = helper.make_tensor("x_z", TensorProto.INT4, [], [0])
    nodes = [*qdq("x", "images", "i4"), node("Flatten", ["x"], ["logits"])]
    source = save(tmp_path / "m.onnx", nodes, {"x_s": f32(0.1), "x_z": zero}, opset=21)
    x = f32([-2, -0.35, 0.25, 2]).reshape(1, 1, 2, 2)
    with Reference().open(source) as engine:
        assert engine.run(x, ["x_q"])["x_q"].ravel().tolist() == [-8, -3, 2, 7]  # 0.35 / float32(0.1) < 3.5


# --- torch exports --------------------------------------------------------------------------------------------------


def exported(path, module, shape):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    torch.onnx.export(
        module.eval(),
        (torch.rand(2, *shape),),
        path,
        dynamo=True,
        verbose=False,
        external_data=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=20,
    )
    channels, height, width = shape
    return Source(path=path, input=InputSpec(channels=channels, height=height, width=width))


def residual_net(torch):
    F, nn = torch.nn.functional, torch.nn

    class Net(nn.Module):
        """Option-A shortcut, asymmetric padding, normalisation inside, ceil-mode average pool, LayerNorm head."""

        def __init__(self):
            super().__init__()
            self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
            self.down, self.norm2 = nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16)
            self.head = nn.Sequential(nn.LayerNorm(16), nn.GELU(), nn.Dropout(), nn.Linear(16, 10))
            for norm in (self.norm, self.norm2):
                nn.init.uniform_(norm.running_mean, -0.5, 0.5)
                nn.init.uniform_(norm.running_var, 0.5, 2)

        def forward(self, x):
            x = torch.relu(self.norm(self.stem((x - 0.4) / 0.2)))
            y = self.norm2(self.down(F.pad(x, (0, 1, 0, 1))))
            x = F.leaky_relu(y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)), 0.1)
            x = F.avg_pool2d(x, 3, stride=2, padding=1, ceil_mode=True, count_include_pad=False)
            return self.head(F.max_pool2d(x, 2).mean((2, 3)))

    return Net()


def mobile_net(torch):
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            wide = nn.Sequential(nn.Conv2d(8, 24, 1), nn.BatchNorm2d(24), nn.ReLU6())
            deep = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.Hardswish(), nn.Conv2d(24, 8, 1))
            self.body = nn.Sequential(*wide, *deep)
            self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Hardsigmoid())

        def forward(self, x):
            y = self.body(x)
            return x + y * self.gate(y)

    return nn.Sequential(
        *[nn.Conv2d(3, 8, 3, stride=2), Block(), nn.SiLU(), nn.GroupNorm(2, 8), nn.Upsample(scale_factor=2)],
        *[nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10), nn.LogSoftmax(1)],
    )


def spatial_transformer(torch):
    F, nn = torch.nn.functional, torch.nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.find, self.theta = nn.Conv2d(3, 4, 5), nn.Linear(4 * 144, 6)
            self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 10)

        def forward(self, x):
            theta = self.theta(torch.relu(self.find(x)).flatten(1)).view(-1, 2, 3)
            x = F.grid_sample(x, F.affine_grid(theta, x.size(), align_corners=False), align_corners=False)
            return self.head(F.softplus(self.conv(x)).amax((2, 3)))

    return Net()


@pytest.mark.filterwarnings("ignore")  # torch's exporter warns about its own internals
@pytest.mark.parametrize("make", [residual_net, mobile_net, spatial_transformer])
def test_networks_exported_by_torch_agree_with_torch_and_onnxruntime(tmp_path, make):
    torch = pytest.importorskip("torch")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = make(torch)
    source, x = exported(tmp_path / "m.onnx", module, (3, 16, 16)), images(7, 3, 16, 16)
    with Reference().open(source) as engine, torch.no_grad():
        logits = engine.predict(x)
        assert engine.predict(x[:0]).shape == (0, 10)
    np.testing.assert_allclose(logits, module(torch.from_numpy(x)).detach().numpy(), atol=1e-4)
    session = ort.InferenceSession(source.path, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(logits, session.run(None, {session.get_inputs()[0].name: x})[0], atol=1e-4)


# --- what is refused ------------------------------------------------------------------------------------------------

FLATTEN = node("Flatten", ["images"], ["logits"])
SCALES = {"s": f32(0.1), "z": np.int8(0), "s2": f32(0.1, 0.2), "bad": f32(0.0)}
REFUSED = {
    "unknown": ([node("Strange", ["images"], ["logits"], name="n7")], UnsupportedOperatorError, "Strange.*'n7'"),
    "domain": (
        [node("Conv", ["images"], ["logits"], domain="com.example", name="n7")],
        UnsupportedOperatorError,
        "com.example::Conv.*'n7'",
    ),
    "computed scale": (
        [node("ReduceMax", ["images"], ["top"], keepdims=0), node("QuantizeLinear", ["images", "top"], ["logits"])],
        GraphError,
        "computes 'top'",
    ),
    "zero scale": (
        [node("QuantizeLinear", ["images", "bad", "z"], ["logits"])],
        QuantizationError,
        "'logits'.*positive",
    ),
    "nothing makes": ([node("Relu", ["ghost"], ["logits"])], GraphError, "'ghost', which nothing before it makes"),
    "training": (
        [node("BatchNormalization", ["images"] * 5, ["logits"], training_mode=1)],
        UnsupportedOperatorError,
        "eval",
    ),
    "reflection": (
        [node("GridSample", ["images", "images"], ["logits"], padding_mode="reflection")],
        UnsupportedOperatorError,
        "reflection",
    ),
    "indices": (
        [node("MaxPool", ["images"], ["logits", "where"], kernel_shape=[2, 2])],
        UnsupportedOperatorError,
        "indices",
    ),
    "cubic": ([node("Resize", ["images", "", "s"], ["logits"], mode="cubic")], UnsupportedOperatorError, "mode cubic"),
}


@pytest.mark.parametrize(("nodes", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_what_it_cannot_run_is_refused_by_name(tmp_path, nodes, kind, message):
    source = save(tmp_path / "m.onnx", nodes, SCALES)
    with pytest.raises(kind, match=message) as caught, Reference().open(source) as engine:
        engine.predict(images(2, 1, 2, 2))
    assert "\n" not in str(caught.value)


def test_shapes_that_do_not_fit_name_the_node(tmp_path):
    nodes = [node("MatMul", ["images", "m"], ["logits"], name="n7")]
    source = save(tmp_path / "m.onnx", nodes, {"m": np.ones((3, 3), dtype=np.float32)})
    with Reference().open(source) as engine, pytest.raises(GraphError, match="MatMul 'n7' does not fit its inputs"):
        engine.predict(images(2, 1, 2, 2))


def test_old_opsets_are_refused_with_the_way_out(tmp_path):
    with pytest.raises(GraphError, match=r"opset 11.*convert_version"):
        Reference().open(save(tmp_path / "m.onnx", [FLATTEN], {}, opset=11))


def test_nan_is_refused_where_it_would_have_to_become_a_code(tmp_path):
    nodes = [*qdq("x", "images", "i8"), node("Flatten", ["x"], ["logits"])]
    source = save(tmp_path / "m.onnx", nodes, {"x_s": f32(0.1), "x_z": np.int8(0)})
    with Reference().open(source) as engine, pytest.raises(QuantizationError, match=r"QuantizeLinear 'x_q': .*NaN"):
        engine.predict(np.full((1, 1, 2, 2), np.nan, dtype=np.float32))


def test_a_tensor_that_does_not_exist_is_named(tmp_path):
    source = save(tmp_path / "m.onnx", [FLATTEN], {})
    with Reference().open(source) as engine, pytest.raises(GraphError, match="no tensor 'ghost'"):
        engine.run(images(1, 1, 2, 2), ["logits", "ghost"])


def test_local_functions_are_inlined(tmp_path):
    body = [node("Mul", ["a", "a"], ["square"])]
    function = helper.make_function("com.example", "Square", ["a"], ["square"], body, [helper.make_opsetid("", 20)])
    nodes = [node("Square", ["images"], ["s"], domain="com.example"), node("Flatten", ["s"], ["logits"])]
    source = save(tmp_path / "m.onnx", nodes, {})
    model = onnx.load(source.path)
    model.functions.append(function)
    onnx.save(model, source.path)
    x = images(2, 1, 2, 2)
    with Reference().open(source) as engine:
        np.testing.assert_allclose(engine.predict(x), (x * x).reshape(2, 4), rtol=1e-6)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(EngineError, match="there is no ONNX file"):
        Reference().open(Source(path=tmp_path / "absent.onnx", input=InputSpec(channels=1, height=2, width=2)))
