from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from rctk_export.lint import lint
from rctk_export.tensorrt.rest_precision import narrow_rest
from rctk_export.tensorrt.two_four import sparse_layers
from rctk_kernels.errors import GraphError, QuantizationError

X = np.random.default_rng(1).random((64, 3, 8, 8), dtype=np.float32)


def run(model, *names):
    """Return the named tensors for 64 images, from ONNX Runtime without optimisation."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.INT8, None) for name in names)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(["logits", *names], {"images": X})


def stored(model):
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def types(model):
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, check_type=True).graph
    return {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}


@pytest.mark.parametrize(("kind", "element"), [("fp16", TensorProto.FLOAT16), ("bf16", TensorProto.BFLOAT16)])
def test_everything_behind_the_first_pair_has_the_narrow_type(graph, kind, element):
    model = narrow_rest(graph(), kind)
    onnx.checker.check_model(model, full_check=True)
    found = types(model)
    narrow = ("normal.dq", "conv1", "act1", "act1.dq", "sum", "act2", "pool", "flat.dq", "w1.dq", f"logits.{kind}")
    assert {found[name] for name in narrow} == {element}
    assert {found[name] for name in ("centred", "normal", "logits")} == {TensorProto.FLOAT}
    assert {found[name] for name in ("normal.q", "act1.q")} == {TensorProto.INT8}
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert [node.op_type for node in model.graph.node].count("Cast") == 1  # the output's; Q and DQ change types else


def test_float16_moves_no_code_of_the_input_and_hardly_a_logit(graph):
    wide, narrow = graph(), narrow_rest(graph(), "fp16")
    expected, codes = run(wide, "normal.q")
    found, same = run(narrow, "normal.q")
    # the scale 2/127 is rounded to float16 by 0.02 %, which moves a code only within 0.04 of a rounding edge
    assert np.abs(codes.astype(int) - same.astype(int)).max() <= 1
    assert (codes != same).mean() < 0.01
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.95


def test_weights_become_the_codes_of_their_original_values(graph):
    before, after = stored(graph()), stored(narrow_rest(graph(), "bf16"))
    codes = np.rint(before["w2"] / before["w2.s"].reshape(-1, 1, 1, 1)).astype(np.int8)
    assert np.array_equal(after["w2.q"], codes)
    assert "w2" not in after


def test_both_sides_of_a_pair_keep_one_scale_and_the_file_keeps_its_rules(graph):
    model = narrow_rest(graph(), "fp16")
    values = stored(model)
    q, dq = (next(node for node in model.graph.node if node.name == name) for name in ("normal.q", "normal.dq"))
    sides = [values[node.input[1]] for node in (q, dq)]
    assert [side.dtype for side in sides] == [np.float32, np.float16]
    assert float(sides[0]) == float(sides[1]) == float(np.float16(2 / 127))
    assert {finding.rule for finding in lint(model, "tensorrt")} == set()


def test_a_float_graph_is_narrowed_behind_its_normalisation():
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> agraph (float[N,3,8,8] images) => (float[N,2] logits) '
        "<float[2,3,1,1] w = {1, 2, 3, 4, 5, 6}, float half = {0.5}> "
        "{ c = Sub (images, half)  y = Conv (c, w)  p = GlobalAveragePool (y)  logits = Flatten (p) }"
    )
    found = types(narrow_rest(model, "fp16"))
    assert (found["c"], found["y"], found["logits"]) == (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.FLOAT)
    expected, got = run(model)[0], run(narrow_rest(model, "fp16"))[0]
    np.testing.assert_allclose(got, expected, rtol=5e-3, atol=5e-3)


def replace(model, name, value):
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(value, name))
    return model


def test_a_scale_that_float16_cannot_hold_is_refused_by_name(graph):
    model = replace(graph(), "act1.s", np.float32(1.3e-7))
    with pytest.raises(QuantizationError, match=r"scale 1\.3e-07 of 'act1\.q' does not fit fp16.*bf16"):
        narrow_rest(model, "fp16")
    narrow_rest(model, "bf16")


def test_the_tiny_scale_of_a_dead_channel_stays_positive(graph):
    model = graph()
    weight, scale = stored(model)["w2"].copy(), stored(model)["w2.s"].copy()
    weight[1], scale[1] = 0, 1e-12
    replace(replace(model, "w2", weight), "w2.s", scale)
    narrowed = stored(narrow_rest(model, "fp16"))
    assert (narrowed["w2.s.fp16"] > 0).all()
    scale[0] = 1e-12
    with pytest.raises(QuantizationError, match=r"w2\.dq"):
        narrow_rest(replace(model, "w2.s", scale), "fp16")


def test_a_constant_beyond_float16_is_refused(graph):
    with pytest.raises(QuantizationError, match=r"constant of 'conv1' reaches 70000.*bf16"):
        narrow_rest(replace(graph(), "b1", np.full(4, 70000, np.float32)), "fp16")


def test_control_flow_is_refused(graph):
    model = graph()
    branch = helper.make_graph([], "branch", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch))
    with pytest.raises(GraphError, match="If, Loop or Scan"):
        narrow_rest(model, "fp16")


def test_the_model_that_was_given_stays_as_it_was(graph):
    model, before = graph(), graph().SerializeToString(deterministic=True)
    narrow_rest(model, "fp16")
    assert model.SerializeToString(deterministic=True) == before


def test_two_of_four_are_counted_along_the_input_channels():
    weights = {
        "sparse": np.tile(np.array([1, 0, 0, 2], np.float32).reshape(1, 4, 1, 1), (2, 2, 3, 3)),
        "wrong_axis": np.tile(np.array([1, 0, 0], np.float32).reshape(1, 1, 1, 3), (2, 8, 3, 1)),
        "odd": np.zeros((2, 6, 1, 1), np.float32),
    }
    nodes = [helper.make_node("Conv", ["x", name], [f"{name}.y"], name=name) for name in weights]
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    stored_weights = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    found = sparse_layers(helper.make_model(helper.make_graph(nodes, "g", [entry], [], stored_weights)))
    assert found == {"sparse": True, "wrong_axis": False, "odd": False}
