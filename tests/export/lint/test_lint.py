from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from rctk_export.lint import TARGETS, lint, require_clean
from rctk_kernels.errors import GraphError, LintError, OptionError

make = helper.make_node


def scale(name, value):
    return lambda s: s.arrays.update({f"{name}.scale": np.asarray(value, np.float32)})


def zero(name, value):
    return lambda s: s.arrays.update({f"{name}.zero": np.asarray(value)})


def computed_scale(s):
    s.nodes.insert(0, make("ReduceMax", ["images"], ["live"], keepdims=0))
    for name in ("act1.q", "act1.dq"):
        s.rewire(name, 1, "live")


def no_axis(s):
    del s.node("w1.dq").attribute[:]


def axis(name, value):
    def edit(s):
        s.node(f"{name}.dq").attribute[0].i = value

    return edit


def transposed_scales(s):
    """Scale the 4x4x3x3 weight along its inputs: lengths fit, the axis is wrong."""
    axis("w2", 1)(s)


def one_more_scale(s):
    scale("w1", np.full(5, 0.1))(s)
    zero("w1", np.zeros(5, np.int8))(s)


def per_channel_activation(s):
    scale("act1", np.full(4, 0.02))(s)
    zero("act1", np.zeros(4, s.arrays["act1.zero"].dtype) + s.arrays["act1.zero"])(s)
    for name in ("act1.q", "act1.dq"):
        s.node(name).attribute.append(helper.make_attribute("axis", 1))


def other_dq_scale(s):
    s.arrays["other"] = np.float32(0.5)
    s.rewire("act1.dq", 1, "other")


def chain(s):
    before = s.node("act1.dq").output[0]
    names = ["act1.scale", "act1.zero"]
    s.before(
        "conv2",
        make("QuantizeLinear", [before, *names], ["again.q"], name="again.q"),
        make("DequantizeLinear", ["again.q", *names], ["again.dq"], name="again.dq"),
    )
    s.rewire("conv2", 0, "again.dq")


def block(s):
    scale("w3", np.full((5, 2), 0.1))(s)
    zero("w3", np.zeros((5, 2), np.int8))(s)
    s.node("w3.dq").attribute.append(helper.make_attribute("block_size", 2))
    s.node("w3.dq").attribute[0].i = 1
    s.opset = 21


def fp16_scale(s):
    s.opset = 18
    s.arrays["act1.scale"] = np.float16(0.02)


def disagreeing_type(s):
    s.opset = 21
    s.node("act1.q").attribute.append(helper.make_attribute("output_dtype", TensorProto.INT16))


def low_code(s):
    s.arrays["w2"][0, 0, 0, 0] = -128


def low_code_of_float_weight(s):
    s.arrays["w1"] = np.full((4, 3, 3, 3), -0.256, np.float32)  # / 0.002 = -128
    s.before("w1.dq", make("QuantizeLinear", ["w1", "w1.scale", "w1.zero"], ["w1.q"], name="w1.q", axis=0))
    s.rewire("w1.dq", 0, "w1.q")


def float_layer(s):
    s.arrays["w3"] = s.arrays["w3"].astype(np.float32)
    s.nodes.remove(s.node("w3.dq"))
    s.before("logits", make("Sigmoid", ["flat"], ["squashed"], name="squashed"))
    s.rewire("logits", 0, "squashed")
    s.rewire("logits", 1, "w3")


def branch(s):
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    inner = helper.make_graph([make("Identity", ["flat"], ["o"])], "inner", [], [out])
    s.arrays["yes"] = np.array(True)
    s.before("flat.q", make("If", ["yes"], ["chosen"], name="branch", then_branch=inner, else_branch=inner))
    s.rewire("flat.q", 0, "chosen")


SHARED = [
    ("scale-constant", "act1.q", computed_scale),
    ("scale-constant", "act1.q", scale("act1", [])),
    ("scale-positive", "act1.q", scale("act1", 0.0)),
    ("scale-positive", "w1.dq", scale("w1", [0.1, -0.1, 0.1, 0.1])),
    ("scale-positive", "w1.dq", scale("w1", [0.1, np.inf, 0.1, 0.1])),
    ("scale-positive", "act2.q", scale("act2", np.nan)),
    ("zero-point-count", "w1.dq", zero("w1", np.zeros(3, np.int8))),
    ("axis-explicit", "w1.dq", no_axis),
    ("axis-length", "w1.dq", one_more_scale),
    ("axis-length", "w1.dq", axis("w1", 1)),
    ("axis-length", "w1.dq", axis("w1", 4)),
    ("activation-per-tensor", "act1.q", per_channel_activation),
    ("weight-axis", "w2.dq", transposed_scales),
    ("pair-agrees", "act1.dq", other_dq_scale),
    ("no-chain", "again.q", chain),
    ("no-block", "w3.dq", block),
    ("fp16-opset", "act1.q", fp16_scale),
    ("output-dtype", "act1.q", disagreeing_type),
    ("weight-code", "w2.dq", low_code),
    ("weight-code", "w1.q", low_code_of_float_weight),
    ("float-layer", "logits", float_layer),
    ("control-flow", "branch", branch),
]


@pytest.mark.parametrize("target", TARGETS)
def test_a_good_graph_has_no_findings(sketch, target):
    model = sketch(target)().model()
    onnx.checker.check_model(model, full_check=True)
    assert lint(model, target) == []
    assert require_clean(model, target) == []


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("rule", "node", "spoil"), SHARED, ids=[f"{r}-{n}" for r, n, _ in SHARED])
def test_a_spoilt_graph_breaks_the_rule_at_the_node(sketch, target, rule, node, spoil):
    s = sketch(target)()
    spoil(s)
    assert (rule, node) in {(finding.rule, finding.node) for finding in lint(s.model(), target)}


def test_every_rule_has_an_id_of_its_own_and_a_remedy():
    for rules in TARGETS.values():
        ids = [rule.id for rule in rules]
        assert len(ids) == len(set(ids))
        assert all(rule.remedy for rule in rules)


def test_the_error_names_rule_node_value_remedy_and_how_many_more(sketch):
    s = sketch("tensorrt")()
    scale("w1", [0.1, 0.0, 0.1, 0.0])(s)
    scale("act1", -1.0)(s)
    with pytest.raises(
        LintError, match=r"tensorrt: scale-positive at 'w1\.dq': scale 0 at index 1 \(2 of 4 bad\); give"
    ):
        require_clean(s.model(), "tensorrt")
    with pytest.raises(LintError, match=r"\(1 more\)$"):
        require_clean(s.model(), "tensorrt")


def test_errors_come_first_and_warnings_alone_do_not_raise(sketch):
    s = sketch("cpu")()
    low_code(s)
    assert [f.rule for f in require_clean(s.model(), "cpu")] == ["weight-code"]
    scale("act2", 0.0)(s)
    severities = [finding.severity for finding in lint(s.model(), "cpu")]
    assert severities == sorted(severities)
    assert {"error", "warning"} == set(severities)


def test_an_unknown_target_is_answered_with_the_nearest(sketch):
    with pytest.raises(OptionError, match="did you mean 'tensorrt'"):
        lint(sketch("cpu")().model(), "tensort")


def test_linting_changes_nothing(sketch):
    model = sketch("tensorrt")().model()
    before = model.SerializeToString(deterministic=True)
    lint(model, "tensorrt")
    assert model.SerializeToString(deterministic=True) == before


def test_external_data_is_reported_without_being_opened(sketch):
    model = sketch("tensorrt")().model()
    tensor = next(t for t in model.graph.initializer if t.name == "w1")
    onnx.external_data_helper.set_external_data(tensor, location="absent.bin")
    tensor.ClearField("raw_data")
    assert [finding.rule for finding in lint(model, "tensorrt")] == ["external-data"]


def test_a_circular_graph_is_refused(sketch):
    s = sketch("tensorrt")()
    s.rewire("act1.q", 0, "sum")
    with pytest.raises(GraphError, match=r"'act1\.q' reads 'sum' before anything makes it"):
        lint(s.model(), "tensorrt")


@pytest.mark.parametrize("target", TARGETS)
def test_odd_constants_are_findings_and_not_crashes(sketch, target):
    odd = [np.zeros(0, np.float32), np.full(3, np.nan), np.zeros((2, 2), np.uint8), np.int64(-1), np.float16([1, -1])]
    for name in sketch(target)().arrays:
        for value in odd:
            s = sketch(target)()
            s.arrays[name] = np.asarray(value)
            lint(s.model(), target)


def test_a_quantizer_without_a_scale_is_refused(sketch):
    s = sketch("cpu")()
    del s.node("act1.q").input[1:]
    with pytest.raises(GraphError, match="has 1 inputs, QuantizeLinear needs 2"):
        lint(s.model(), "cpu")
