import numpy as np
import pytest

pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper

node = helper.make_node


def f32(*values):
    return np.array(values if len(values) > 1 else values[0], dtype=np.float32)


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
def test_an_operator_of_one_tensor_agrees_with_onnxruntime(agrees, ops, attributes):
    first, second = ops[0], ops[-1]
    nodes = [node("Sub", ["images", "half"], ["centred"])] if first == "Sub" else []
    nodes += [node(second, ["centred" if nodes else "images"], ["logits"], **attributes)]
    agrees(nodes, PARAMETERS)


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
def test_a_chain_of_operators_agrees_with_onnxruntime(agrees, nodes):
    used = {name for item in nodes for name in item.input}
    agrees(nodes, {name: value for name, value in MORE.items() if name in used})


def test_group_normalization_agrees_with_onnxruntime(agrees):
    nodes = [node("GroupNormalization", ["images", "scale", "shift"], ["logits"], num_groups=2)]
    agrees(nodes, PARAMETERS, opset=21)
