"""What the predictor expects of good files, and of files spoilt in one place."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper

from rctk_export.lint import lint
from rctk_export.tensorrt.fusion import predict

make = helper.make_node
SHAPES = {"digits-cnn": (1, 8, 8)}
ARCHITECTURES = ("digits-cnn", "resnet20:depth=8", "mobilenetv2")


def node(model, name):
    return next(n for n in model.graph.node if n.name == name)


def insert(model, before, *nodes):
    at = list(model.graph.node).index(node(model, before))
    for step, new in enumerate(nodes):
        model.graph.node.insert(at + step, new)
    return model


def exported(arch):
    """Return the tensorrt file of a built-in architecture; its ranges are made up, its placement is the exporter's."""
    pytest.importorskip("torch")
    from rctk.models import build_architecture
    from rctk_export.capture import capture
    from rctk_export.graph import Graph
    from rctk_export.input_spec import InputSpec
    from rctk_export.quantize import PLANNERS
    from rctk_export.quantize.write import write_qdq

    channels, height, width = SHAPES.get(arch, (3, 32, 32))
    spec = InputSpec(channels=channels, height=height, width=width, mean=(0.5,) * channels)
    model = capture(build_architecture(arch, classes=10, input=spec).eval(), spec)
    plan = PLANNERS.build("tensorrt").plan(Graph(onnx.ModelProto.FromString(model.SerializeToString())))
    return write_qdq(model, plan, dict.fromkeys(plan.calibrated(), (-2.0, 2.0)))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_files_of_the_main_job_break_no_rule_and_fuse_whole(arch):
    model = exported(arch)
    assert lint(model, "tensorrt") == []
    found = predict(model)
    assert (found.int8, found.causes, found.adds) == (len(found.layers), {}, ())
    assert len(found.conversions) == 1  # the Q of the images; everything else moves into a layer
    assert [kernel.name for kernel in found.kernels if kernel.writes == "float"] == [found.layers[-1]]


def test_normalisation_between_an_add_and_its_layer_costs_conversions_that_are_named():
    """Pre-activation networks read the sum in float: every layer runs in int8, those in front of an add write float."""
    model = exported("wrn-28-4:depth=16,widen=2")
    assert lint(model, "tensorrt") == []
    found = predict(model)
    assert found.int8 == len(found.layers) == 17
    writes_float = {name for name in found.causes if name.endswith("conv2")}
    assert writes_float == {f"block{b}.layer.{i}.conv2" for b in (1, 2, 3) for i in range(2)}


def test_the_pieces_of_a_residual_block(graph):
    found = predict(graph())
    assert found.named("conv1").takes_in == ("act1", "act1.q")
    assert found.named("conv2").takes_in == ("sum", "act2", "act2.q")
    assert found.named("pool").takes_in == ("flat.q",)
    assert found.named("logits").takes_in == ()
    assert [(k.arithmetic, k.writes) for k in found.kernels] == [("int8", "int8")] * 3 + [("int8", "float")]
    assert found.conversions == ("normal.q",)
    assert (found.int8, found.layers, found.causes, found.adds) == (3, ("conv1", "conv2", "logits"), {}, ())


def test_a_pair_on_both_branches_breaks_the_fusion(graph):
    model = graph()
    ends = ["act1.s", "act1.z"]
    q = make("QuantizeLinear", ["conv2", *ends], ["main.q"], name="main.q")
    dq = make("DequantizeLinear", ["main.q", *ends], ["main.dq"], name="main.dq")
    node(insert(model, "sum", q, dq), "sum").input[0] = "main.dq"
    found = predict(model)
    assert found.named("conv2").takes_in == ("main.q",)
    assert found.adds == ("sum",)
    assert set(found.conversions) == {"normal.q", "act2.q", "main.dq", "act1.dq"}


def test_a_float_skip_makes_the_layer_write_float(graph):
    model = graph()
    node(model, "sum").input[1] = "act1"
    found = predict(model)
    assert found.named("conv2").writes == "float"
    assert found.causes["conv2"] == "the other branch of 'sum' is float, so this one is, too"
    assert found.causes["conv1"] == "its output is read in float by sum"
    assert found.adds == ("sum",)


def test_a_layer_with_a_float_input_is_float_and_says_which(graph):
    model = graph()
    node(model, "conv2").input[1] = "w2"
    found = predict(model)
    assert found.named("conv2").arithmetic == "float"
    assert found.causes["conv2"] == "'w2' is float"
    assert found.int8 == 2


def test_a_pooling_whose_output_is_float_computes_in_float(graph):
    model = graph()
    node(model, "logits").input[0] = "flat"
    found = predict(model)
    assert found.named("pool").arithmetic == "float"
    assert found.causes["logits"] == "'flat' is float"


def test_a_pair_moves_through_operators_that_only_move_values(graph):
    model = insert(graph(), "act1.q", make("MaxPool", ["act1"], ["moved"], name="moved", kernel_shape=[1, 1]))
    node(model, "act1.q").input[0] = "moved"
    assert predict(model).named("conv1").takes_in == ("act1", "act1.q")


def test_two_scales_for_one_output_keep_it_float(graph):
    model = graph()
    q = make("QuantizeLinear", ["act1", "act2.s", "act1.z"], ["again.q"], name="again.q")
    dq = make("DequantizeLinear", ["again.q", "act2.s", "act1.z"], ["again.dq"], name="again.dq")
    node(insert(model, "sum", q, dq), "sum").input[1] = "again.dq"
    assert predict(model).causes == {"conv1": "it is quantized with several scales"}


def test_an_operator_between_a_layer_and_its_pair_is_named(graph):
    model = insert(graph(), "act1.q", make("Sigmoid", ["act1"], ["soft"], name="soft"))
    node(model, "act1.q").input[0] = "soft"
    found = predict(model)
    assert found.causes == {"conv1": "'soft' reads it in float"}
    assert found.conversions == ("normal.q", "act1.q")
