import numpy as np
import pytest

from rctk_export.engine import Source
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import EngineError, GraphError, QuantizationError, UnsupportedOperatorError

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from rctk_export.engines.reference import Reference  # noqa: E402

node = helper.make_node


def save(path, nodes, constants, shape=(1, 2, 2), opset=20):
    """Write a graph of one input ``images`` and one output."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [
            value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value), name)
            for name, value in constants.items()
        ],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.example", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)
    channels, height, width = shape
    return Source(path=path, input=InputSpec(channels=channels, height=height, width=width))


def images(count, *shape):
    return np.random.default_rng(0).random((count, *shape), dtype=np.float32)


def f32(*values):
    return np.array(values if len(values) > 1 else values[0], dtype=np.float32)


def qdq(name, tensor):
    """Q and DQ nodes from ``tensor`` to ``name``; constants ``name_s`` and ``name_z`` hold the grid."""
    grid = [f"{name}_s", f"{name}_z"]
    return [
        node("QuantizeLinear", [tensor, *grid], [f"{name}_q"]),
        node("DequantizeLinear", [f"{name}_q", *grid], [name]),
    ]


def test_a_1x1_network_worked_by_hand(tmp_path):
    nodes = [
        *qdq("x", "images"),
        node("DequantizeLinear", ["w_q", "w_s"], ["w"], axis=0),
        node("DequantizeLinear", ["b_q", "b_s"], ["b"], axis=0),
        node("Conv", ["x", "w", "b"], ["y"]),
        *qdq("yq", "y"),
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
        *qdq("x", "images"),
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


def test_an_average_of_codes_is_summed_then_scaled_then_divided(tmp_path):
    nodes = [*qdq("x", "images"), node("ReduceMean", ["x", "axes"], ["logits"], keepdims=0)]
    constants = {"x_s": f32(0.1), "x_z": np.uint8(7), "axes": np.array([2, 3])}
    source = save(tmp_path / "m.onnx", nodes, constants, shape=(1, 1, 3))
    x = f32([0.1, 0.1, 0.5]).reshape(1, 1, 1, 3)
    with Reference().open(source) as engine:
        values = engine.run(x, ["x_q", "logits"])
    assert values["x_q"].tolist() == [[[[8, 8, 12]]]]
    scale = float(np.float32(0.1))
    assert values["logits"].item() == 7 * scale / 3
    assert 7 * scale / 3 != 7 / 3 * scale  # so the order is seen


FLATTEN = node("Flatten", ["images"], ["logits"])
SCALES = {"s": f32(0.1), "z": np.int8(0), "s2": f32(0.1, 0.2), "bad": f32(0.0)} | {
    "codes": np.ones((4, 1), dtype=np.int8),
    "blocks": f32([[0.1], [0.2]]),
    "yes": np.array(True),
    "flat": np.array([0, 1, 4]),
    "w1": np.ones((1, 1, 3), dtype=np.float32),
}
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
    "dropout": (
        [node("Dropout", ["images", "", "yes"], ["logits"])],
        UnsupportedOperatorError,
        "export the model in eval mode",
    ),
    "blocks": (
        [node("DequantizeLinear", ["codes", "blocks", ""], ["logits"], axis=0, block_size=2)],
        UnsupportedOperatorError,
        "'logits' has blocked scales",
    ),
    "float8": (
        [node("QuantizeLinear", ["images", "s"], ["logits"], output_dtype=TensorProto.FLOAT8E4M3FN)],
        UnsupportedOperatorError,
        "uses FLOAT8E4M3FN",
    ),
    "rank": (
        [node("Reshape", ["images", "flat"], ["a"]), node("Conv", ["a", "w1"], ["logits"], name="n7")],
        UnsupportedOperatorError,
        r"Conv 'n7' works on shape \(2, 1, 4\)",
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


def test_graphs_of_old_opsets_are_converted_first(tmp_path):
    nodes = [node("Clip", ["images"], ["c"], min=0.25, max=0.5), node("Squeeze", ["c"], ["s"], axes=[1])]
    source = save(tmp_path / "m.onnx", [*nodes, node("Flatten", ["s"], ["logits"])], {}, opset=10)
    x = images(3, 1, 2, 2)
    with Reference().open(source) as engine:
        assert np.array_equal(engine.predict(x), np.clip(x, 0.25, 0.5).reshape(3, 4))


def test_an_old_graph_that_cannot_be_converted_is_refused_in_one_line(tmp_path):
    with pytest.raises(GraphError, match="opset 10 cannot be converted to 13") as caught:
        Reference().open(save(tmp_path / "m.onnx", [node("Strange", ["images"], ["logits"])], {}, opset=10))
    assert "\n" not in str(caught.value)


def test_nan_is_refused_where_it_would_have_to_become_a_code(tmp_path):
    nodes = [*qdq("x", "images"), node("Flatten", ["x"], ["logits"])]
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
