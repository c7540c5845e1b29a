from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from rctk_export.lint import lint

make = helper.make_node


def found(s, target="tensorrt"):
    return {(finding.rule, finding.node) for finding in lint(s.model(), target)}


def uint8_activation(s):
    s.arrays["act1.zero"] = np.uint8(0)


def no_zero_point(s):
    del s.node("act1.q").input[2:]
    del s.node("act1.dq").input[2:]


def asymmetric(s):
    s.arrays["act1.zero"] = np.int8(-7)


def uint8_cast(s):
    s.before(
        "images.q",
        make("Cast", ["images"], ["pixels"], name="to_uint8", to=TensorProto.UINT8),
        make("Cast", ["pixels"], ["back"], name="back", to=TensorProto.FLOAT),
    )
    s.rewire("images.q", 0, "back")


def integer_bias(s):
    s.arrays |= {"b": np.ones(4, np.int32), "b.scale": np.float32(0.1)}
    s.before("conv2", make("DequantizeLinear", ["b", "b.scale"], ["b.dq"], name="b.dq"))
    s.rewire("conv2", 2, "b.dq")


def integer_matmul(s):
    s.arrays["m"] = np.ones((4, 4), np.uint8)
    s.before(
        "flat.q",
        make("DynamicQuantizeLinear", ["flat"], ["d", "ds", "dz"], name="dynamic"),
        make("MatMulInteger", ["d", "m"], ["mm"], name="integer"),
        make("Cast", ["mm"], ["mf"], to=TensorProto.FLOAT),
    )
    s.rewire("flat.q", 0, "mf")


def opset(version):
    return lambda s: setattr(s, "opset", version)


def domains(s):
    s.domains = ("com.microsoft",)


def foreign(s):
    s.domains = ("com.microsoft",)
    s.before("flat.q", make("Gelu", ["flat"], ["gelu"], name="gelu", domain="com.microsoft"))
    s.rewire("flat.q", 0, "gelu")


def double(s):
    s.before(
        "flat.q",
        make("Cast", ["flat"], ["wide"], name="widen", to=TensorProto.DOUBLE),
        make("Cast", ["wide"], ["narrow"], to=TensorProto.FLOAT),
    )
    s.rewire("flat.q", 0, "narrow")


def float_activation(s):
    s.rewire("conv2", 0, "act1")


def float_weight(s):
    s.arrays["wf"] = np.ones((4, 4, 3, 3), np.float32)
    s.rewire("conv2", 1, "wf")


def conv_pair(s):
    names = ["act1.scale", "act1.zero"]
    s.before(
        "sum",
        make("QuantizeLinear", ["conv2", *names], ["main.q"], name="main.q"),
        make("DequantizeLinear", ["main.q", *names], ["main.dq"], name="main.dq"),
    )
    s.rewire("sum", 0, "main.dq")


def float_skip(s):
    s.rewire("sum", 1, "act1")


def concat(scale):
    def edit(s):
        s.arrays["other.scale"] = np.float32(scale)
        s.before(
            "act2",
            make("QuantizeLinear", ["sum", "other.scale", "act1.zero"], ["other.q"], name="other.q"),
            make("DequantizeLinear", ["other.q", "other.scale", "act1.zero"], ["other.dq"], name="other.dq"),
            make("Concat", ["act1.dq", "other.dq"], ["both"], name="both", axis=2),
        )
        s.rewire("act2", 0, "both")

    return edit


def int4(shape, scales, version=21, **attributes):
    """Store the linear weight in 4 bits."""

    def edit(s):
        s.opset = version
        s.arrays["w3"] = np.ones(shape, ml_dtypes.int4)
        s.arrays["w3.scale"], s.arrays["w3.zero"] = np.full(scales, 0.1, np.float32), np.zeros(scales, ml_dtypes.int4)
        node = s.node("w3.dq")
        del node.attribute[:]
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())

    return edit


SPOILT = [
    ("zero-point-int8", "act1.q", uint8_activation),
    ("zero-point-int8", "act1.q", no_zero_point),
    ("zero-point-zero", "act1.q", asymmetric),
    ("uint8-inside", "to_uint8", uint8_cast),
    ("int32-dequantize", "b.dq", integer_bias),
    ("integer-operator", "dynamic", integer_matmul),
    ("integer-operator", "integer", integer_matmul),
    ("opset-range", "opset_import", opset(12)),
    ("opset-new", "opset_import", opset(21)),
    ("unused-domain", "opset_import", domains),
    ("foreign-operator", "gelu", foreign),
    ("double", "widen", double),
    ("half-quantized", "conv2", float_activation),
    ("half-quantized", "conv2", float_weight),
    ("add-both-quantized", "sum", conv_pair),
    ("add-float-skip", "sum", float_skip),
    ("concat-scales", "both", concat(0.04)),
    ("int4-form", "w3.dq", int4((5, 4), (5, 2), version=20, axis=1, block_size=2)),
    ("int4-form", "w3.dq", int4((5, 3), 5, axis=0)),
    ("int4-form", "w3.dq", int4((6, 4), (3, 2), axis=1, block_size=2)),
]


@pytest.mark.parametrize(("rule", "node", "spoil"), SPOILT, ids=[f"{r}-{n}-{i}" for i, (r, n, _) in enumerate(SPOILT)])
def test_a_spoilt_graph_breaks_the_rule_at_the_node(sketch, rule, node, spoil):
    s = sketch("tensorrt")()
    spoil(s)
    assert (rule, node) in found(s)


def test_equal_concat_scales_are_fine(sketch):
    s = sketch("tensorrt")()
    concat(0.02)(s)
    assert not found(s)


def test_int4_blocks_of_a_linear_weight_are_fine_in_opset_21(sketch):
    s = sketch("tensorrt")()
    int4((5, 4), (5, 2), axis=1, block_size=2)(s)
    assert {rule for rule, _ in found(s)} == {"opset-new"}


def test_an_int8_output_type_stands_in_for_a_zero_point(sketch):
    s = sketch("tensorrt")()
    no_zero_point(s)
    s.opset = 21
    s.node("act1.q").attribute.append(helper.make_attribute("output_dtype", TensorProto.INT8))
    assert {rule for rule, _ in found(s)} == {"opset-new"}


def test_uint8_is_fine_as_an_input(sketch):
    s = sketch("tensorrt")()
    s.before("images.q", make("Cast", ["images"], ["f"], name="f", to=TensorProto.FLOAT))
    s.rewire("images.q", 0, "f")
    model = s.model()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    assert lint(model, "tensorrt") == []


def test_a_pair_that_the_next_layer_shares_does_not_break_the_fusion_of_a_skip(sketch):
    """The skip may itself be a convolution: its output is quantized once, for the add and for a layer."""
    s = sketch("tensorrt")()
    s.rewire("act1.q", 0, "conv1")
    assert not found(s)


def test_a_pair_before_the_pooling_reaches_the_layer_behind_it(sketch):
    s = sketch("tensorrt")()
    s.before("conv2", make("MaxPool", ["act1.dq"], ["pooled"], name="pooled", kernel_shape=[1, 1]))
    s.rewire("conv2", 0, "pooled")
    assert not found(s)


def test_constants_may_be_nodes(sketch):
    s = sketch("tensorrt")()
    value = numpy_helper.from_array(s.arrays.pop("act1.scale"))
    s.nodes.insert(0, make("Constant", [], ["act1.scale"], name="constant", value=value))
    assert not found(s)


def test_the_mirror_wants_uint8_around_128(sketch):
    assert ("mirror-zero-point", "act1.q") in found(sketch("tensorrt")(), "cpu-mirror")
    s = sketch("cpu-mirror")()
    s.arrays["act1.zero"] = np.uint8(127)
    assert ("mirror-zero-point", "act1.q") in found(s, "cpu-mirror")
    s = sketch("cpu-mirror")()
    no_zero_point(s)
    assert ("mirror-zero-point", "act1.q") in found(s, "cpu-mirror")
    s = sketch("cpu-mirror")()
    s.arrays["w1.zero"] = np.ones(4, np.int8)
    assert ("mirror-zero-point", "w1.dq") in found(s, "cpu-mirror")


def test_the_mirror_is_no_file_for_tensorrt(sketch):
    rules = {rule for rule, _ in found(sketch("cpu-mirror")())}
    assert rules >= {"zero-point-int8", "zero-point-zero", "uint8-inside"}
