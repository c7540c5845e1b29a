from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from rctk_export.lint import lint
from rctk_export.lint.fusion import float_layers, fusion_report, optimised_graph
from rctk_kernels.errors import EngineError

make = helper.make_node


def found(s):
    return {(finding.rule, finding.node) for finding in lint(s.model(), "cpu")}


def int8_activation(s):
    s.arrays["act1.zero"] = np.int8(0)


def uint8_weight(s):
    s.arrays["w1"], s.arrays["w1.zero"] = s.arrays["w1"].astype(np.uint8), np.zeros(4, np.uint8)


def shifted_weight(s):
    s.arrays["w1.zero"] = np.ones(4, np.int8)


def float_bias(s):
    s.arrays["bf"] = np.ones(4, np.float32)
    s.rewire("conv2", 2, "bf")


def bias_scale(s):
    s.arrays["b2.scale"] = s.arrays["b2.scale"] * np.float32(1.0001)


def bias_zero(s):
    s.arrays["b2.zero"] = np.ones(4, np.int32)


def float_output(s):
    """The convolution's output is read in float as well."""
    s.rewire("sum", 0, "conv2")


def symmetric_relu(s):
    """Around 128 the Q does not do what Relu does."""
    s.arrays["act1.zero"] = np.uint8(128)


def narrow_clip(s):
    s.arrays |= {"lo": np.float32(0), "hi": np.float32(6)}
    relu = s.node("act1")
    relu.op_type = "Clip"
    relu.input.extend(["lo", "hi"])
    s.arrays["act1.scale"] = np.float32(7 / 255)
    s.arrays["b2.scale"] = np.float32(7 / 255) * np.full(4, 0.002, np.float32)


def flatten_between(s):
    s.rewire("logits", 0, "flat")


def identity(s):
    s.before("conv2", make("Identity", ["act1.dq"], ["same"], name="same"))
    s.rewire("conv2", 0, "same")


def float_weight(s):
    s.arrays["wf"] = np.ones((4, 4, 3, 3), np.float32)
    s.rewire("conv2", 1, "wf")


SPOILT = [
    ("activation-uint8", "act1.q", int8_activation),
    ("weight-int8", "w1.dq", uint8_weight),
    ("weight-int8", "w1.dq", shifted_weight),
    ("bias-int32", "conv2", float_bias),
    ("bias-int32", "b2.dq", bias_scale),
    ("bias-int32", "b2.dq", bias_zero),
    ("surrounded", "conv2", float_output),
    ("surrounded", "conv1", symmetric_relu),
    ("surrounded", "conv1", narrow_clip),
    ("surrounded", "logits", flatten_between),
    ("identity", "same", identity),
    ("half-quantized", "conv2", float_weight),
]


@pytest.mark.parametrize(("rule", "node", "spoil"), SPOILT, ids=[f"{r}-{n}-{i}" for i, (r, n, _) in enumerate(SPOILT)])
def test_a_spoilt_graph_breaks_the_rule_at_the_node(sketch, rule, node, spoil):
    s = sketch("cpu")()
    spoil(s)
    assert (rule, node) in found(s)


def test_a_clip_that_saturation_covers_is_fine(sketch):
    s = sketch("cpu")()
    narrow_clip(s)
    s.arrays["act1.scale"] = np.float32(6 / 255)
    s.arrays["b2.scale"] = np.float32(6 / 255) * np.full(4, 0.002, np.float32)
    assert not found(s)


def test_a_clean_graph_leaves_no_layer_in_float(sketch):
    report = fusion_report(sketch("cpu")().model())
    assert report.float == ()
    assert len(report.int8) == 3


@pytest.mark.parametrize(
    ("spoil", "name"), [(symmetric_relu, "conv1"), (narrow_clip, "conv1"), (flatten_between, "logits")]
)
def test_onnx_runtime_leaves_in_float_what_the_rule_names(sketch, spoil, name):
    s = sketch("cpu")()
    spoil(s)
    assert ("surrounded", name) in found(s)
    assert len(fusion_report(s.model()).float) == 1


def test_the_optimised_graph_keeps_the_names_of_float_layers(sketch):
    s = sketch("cpu")()
    flatten_between(s)
    optimised = optimised_graph(s.model().SerializeToString())
    assert float_layers(optimised) == ["logits"]
    assert {node.op_type for node in optimised.graph.node} >= {"QLinearConv", "Gemm"}


def test_reports_are_the_same_from_a_file(sketch, tmp_path):
    model = sketch("cpu")().model()
    onnx.save(model, tmp_path / "m.onnx")
    assert fusion_report(tmp_path / "m.onnx") == fusion_report(model.SerializeToString())


def test_an_absent_provider_and_a_broken_model_are_named(sketch):
    with pytest.raises(EngineError, match="no MarsExecutionProvider here; choose from"):
        fusion_report(sketch("cpu")().model(), provider="MarsExecutionProvider")
    s = sketch("cpu")()
    s.node("conv2").op_type = "Convolve"
    with pytest.raises(EngineError, match="cannot load the model"):
        fusion_report(s.model())
