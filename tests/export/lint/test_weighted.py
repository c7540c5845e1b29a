"""Files that one network becomes are counted alike, whatever operators and padding a form or a tool writes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from rctk_export.graph import Graph
from rctk_export.lint.layers import layer_rows, parameter_count
from rctk_export.lint.view import View
from rctk_export.lint.weighted import weighted_layers
from rctk_export.quantize import PLANNERS
from rctk_export.quantize.dynamic import write_dynamic
from rctk_export.quantize.formats import Formats
from rctk_export.quantize.weight_only import write_weight_only
from rctk_export.quantize.write import write_qdq
from rctk_kernels.errors import GraphError

PARAMETERS = {"conv": 16 * 27 + 16, "fc": 32 * 1024 + 32, "out": 10 * 32 + 10}
MACS = {"conv": 8 * 8 * 16 * 27, "fc": 32 * 1024, "out": 10 * 32}


def network(*nodes, normalised=False):
    """A convolution of colour images and two linear layers in float; ``nodes`` replace the last one."""
    rng, make = np.random.default_rng(0), helper.make_node
    shapes = {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (32, 1024), "b2": (32,), "w3": (10, 32), "b3": (10,)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    arrays |= {"mean": np.full((3, 1, 1), 0.5, np.float32), "turned": arrays["w3"].T.copy(), "one": np.ones(1, "f4")}
    made = [
        *([make("Sub", ["images", "mean"], ["centred"], name="centred")] if normalised else []),
        make("Conv", ["centred" if normalised else "images", "w1", "b1"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        make("Relu", ["c"], ["r"], name="relu"),
        make("Flatten", ["r"], ["f"], name="flat"),
        make("Gemm", ["f", "w2", "b2"], ["h"], name="fc", transB=1),
        *(nodes or [make("Gemm", ["h", "w3", "b3"], ["logits"], name="out", transB=1)]),
    ]
    graph = helper.make_graph(
        made,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def rows_of(model):
    return {row.name: row for row in layer_rows(model)}


def assert_counts_of_the_network(model):
    rows = rows_of(model)
    assert {name: row.parameters for name, row in rows.items()} == PARAMETERS
    assert {name: row.macs for name, row in rows.items()} == MACS
    assert parameter_count(model) == sum(PARAMETERS.values())


def static(model, target="cpu"):
    plan = PLANNERS.build(target).plan(Graph(model))
    return write_qdq(model, plan, dict.fromkeys(plan.calibrated(), (0.0, 1.0)))


def test_the_layers_of_a_float_graph_are_counted():
    assert_counts_of_the_network(network())


def test_dynamic_files_hold_the_layers_of_their_float_graph():
    model = write_dynamic(network())
    assert {node.op_type for node in model.graph.node} >= {"ConvInteger", "MatMulInteger"}
    assert_counts_of_the_network(model)
    assert {(row.arithmetic, row.weight_bits, row.reason) for row in rows_of(model).values()} == {
        ("int8 dynamic", 8, "")
    }


def test_a_layer_that_a_dynamic_file_leaves_in_float_says_why():
    model = write_dynamic(network(), keep_float=["conv"])
    assert_counts_of_the_network(model)
    row = next(row for row in layer_rows(model, {"conv": "kept float on request"}) if row.name == "conv")
    assert (row.arithmetic, row.weight_bits, row.reason) == ("float", 32, "kept float on request")


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_weights_alone_are_counted_with_the_bits_that_store_them(bits):
    model = write_weight_only(network(), Formats(weight_bits=bits))
    assert_counts_of_the_network(model)
    rows = rows_of(model)
    assert {rows[name].weight_bits for name in ("fc", "out")} == {bits}
    assert {(rows[name].arithmetic, rows[name].reason) for name in ("fc", "out")} == {(f"int{bits} weights", "")}
    assert rows["conv"].reason
    # ten outputs of 2 bits fill two bytes and a half; two more of zeros fill the third
    assert (rows["out"].padding, rows["fc"].padding) == ("2 outputs of zeros" if bits == 2 else "", "")


@pytest.mark.parametrize("normalised", [False, True])
def test_the_zero_channel_of_a_colour_stem_is_named_and_not_counted(normalised):
    model = static(network(normalised=normalised))
    assert_counts_of_the_network(model)
    rows = rows_of(model)
    assert rows["conv"].weight_shape == (16, 4, 3, 3)
    assert (rows["conv"].padding, rows["fc"].padding) == ("1 input channel of zeros", "")


def test_an_appended_channel_with_weights_belongs_to_the_network():
    model = static(network())
    codes = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [16, 4, 3, 3])
    values = numpy_helper.to_array(codes).copy()
    values[5, 3, 1, 1] = 1
    codes.CopyFrom(numpy_helper.from_array(values, codes.name))
    row = rows_of(model)["conv"]
    assert (row.parameters, row.macs, row.padding) == (16 * 36 + 16, 8 * 8 * 16 * 36, "")


def test_targets_without_that_channel_count_the_same():
    assert_counts_of_the_network(static(network(), "tensorrt"))


class Images(CalibrationDataReader):
    def __init__(self):
        self.batches = iter([{"images": np.random.default_rng(0).random((4, 3, 8, 8), dtype=np.float32)}])

    def get_next(self):
        return next(self.batches, None)


def test_operators_that_hold_integers_themselves_are_layers(tmp_path):
    path = tmp_path / "int8.onnx"
    quantize_static(network(), path, Images(), quant_format=QuantFormat.QOperator)
    model = onnx.load(path)
    rows = {row.op: row for row in layer_rows(model)}
    assert rows["QLinearConv"].macs == MACS["conv"]
    assert rows["QLinearConv"].parameters == PARAMETERS["conv"]
    assert (rows["QLinearConv"].arithmetic, rows["QLinearConv"].weight_bits) == ("int8", 8)
    assert rows["QLinearConv"].input_scale == pytest.approx(1 / 255, rel=0.01)
    assert rows["QLinearConv"].weight_scales[1] > 0
    assert rows["QGemm"].macs is None  # nothing infers shapes behind operators of Microsoft's domain
    assert parameter_count(model) == sum(PARAMETERS.values())


def test_products_of_packed_codes_are_layers():
    hidden = helper.make_node("MatMul", ["h", "turned"], ["p"], name="out")
    model = network(hidden, helper.make_node("Add", ["p", "b3"], ["logits"], name="add"))
    quantizer = MatMulNBitsQuantizer(model, bits=4, block_size=32, is_symmetric=True)
    quantizer.process()
    row = next(row for row in layer_rows(quantizer.model.model) if row.op == "MatMulNBits")
    assert (row.weight_shape, row.weight_bits, row.arithmetic, row.reason) == ((32, 10), 4, "int4 weights", "")
    assert (row.macs, row.parameters) == (MACS["out"], PARAMETERS["out"])


@pytest.mark.parametrize(("added", "parameters"), [("b3", 330), ("one", 320)])
def test_what_is_added_to_every_output_of_a_product_is_its_bias(added, parameters):
    product = helper.make_node("MatMul", ["h", "turned"], ["p"], name="out")
    model = network(product, helper.make_node("Add", [added, "p"], ["logits"], name="add"))
    assert rows_of(model)["out"].parameters == parameters
    assert parameter_count(model) == PARAMETERS["conv"] + PARAMETERS["fc"] + parameters


def test_a_slice_that_cuts_real_outputs_off_leaves_the_count():
    view = View(write_weight_only(network(), Formats(weight_bits=2)))
    end = next(tensor for tensor in view.model.graph.initializer if tensor.name == "out.weight.end")
    end.CopyFrom(numpy_helper.from_array(np.array([9]), end.name))
    layer = next(layer for layer in weighted_layers(View(view.model)) if layer.node.name == "out")
    assert (layer.zero_outputs, layer.network_shape) == (0, (32, 12))


def test_a_layer_without_a_weight_is_refused():
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x"], ["y"], name="odd")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [1, 4])],
    )
    with pytest.raises(GraphError, match="node 'odd' has no weight among its 1 inputs"):
        layer_rows(helper.make_model(graph))
