from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from rctk_export.input_spec import InputSpec
from rctk_export.intake import leading_normalisation, notes, output_classes, prepare, softmax_output, strip_softmax
from rctk_export.onnx_files import load_onnx
from rctk_kernels.errors import GraphError

make = helper.make_node
SPEC = InputSpec(channels=3, height=4, width=4)
NORMALISED = InputSpec(channels=3, height=4, width=4, mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0))
IMAGES = np.random.default_rng(1).random((5, 3, 4, 4), dtype=np.float32)


def classifier(
    *,
    batch="n",
    opset=17,
    head=(),
    tail=("Flatten",),
    kind=TensorProto.FLOAT,
    dtype=np.float32,
    arrays=None,
    outputs=("out",),
    inputs=("x",),
    size=(3, 4, 4),
    out_shape=("n", 5),
):
    """Conv, Relu, mean over the image, then ``tail``; ``head`` stands between the input and ``h``."""
    rng = np.random.default_rng(0)
    stored = {
        "w": rng.normal(size=(5, 3, 3, 3)).astype(dtype),
        "b": rng.normal(size=5).astype(dtype),
        **(arrays or {}),
    }
    body = [
        *head,
        make("Conv", ["h" if head else "x", "w", "b"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        make("Relu", ["c"], ["r"], name="relu"),
        make("GlobalAveragePool", ["r"], ["p"], name="pool"),
    ]
    last = "p"
    for i, step in enumerate(tail):
        made = "out" if i == len(tail) - 1 else f"t{i}"
        op, extra, settings = step if isinstance(step, tuple) else (step, [], {})
        body.append(make(op, [last, *extra], [made], name=f"{op.lower()}{i}", **settings))
        last = made
    graph = helper.make_graph(
        body,
        "classifier",
        [helper.make_tensor_value_info(name, kind, [batch, *size]) for name in inputs],
        [helper.make_tensor_value_info(name, out_kind(dtype), list(out_shape)) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def out_kind(dtype):
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def run(model, images):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def same(a, b, atol=1e-5):
    return a.shape == b.shape and np.allclose(a, b, rtol=0, atol=atol)


def test_names_shapes_and_answers():
    model = classifier()
    ready = prepare(model, SPEC)
    entry, out = ready.graph.input[0], ready.graph.output[0]
    assert (entry.name, out.name) == ("images", "logits")
    assert [d.dim_param or d.dim_value for d in entry.type.tensor_type.shape.dim] == ["batch", 3, 4, 4]
    assert [d.dim_param or d.dim_value for d in out.type.tensor_type.shape.dim] == ["batch", 5]
    assert same(run(ready, IMAGES), run(model, IMAGES))
    assert notes(ready) == []
    assert output_classes(ready, IMAGES) == 5


def test_the_given_model_is_not_changed():
    model = classifier(batch=1)
    before = model.SerializeToString(deterministic=True)
    prepare(model, NORMALISED)
    assert model.SerializeToString(deterministic=True) == before


def test_normalisation_goes_in_front():
    model = classifier()
    mean, std = NORMALISED.mean_std()
    ready = prepare(model, NORMALISED)
    assert same(run(ready, IMAGES), run(model, (IMAGES - mean) / std))
    assert [node.op_type for node in ready.graph.node[:2]] == ["Sub", "Div"]


def test_a_neutral_half_of_the_normalisation_is_left_out():
    spec = InputSpec(channels=3, height=4, width=4, std=(1 / 255,) * 3)
    ready = prepare(classifier(), spec)
    assert [node.op_type for node in ready.graph.node[:2]] == ["Div", "Conv"]


@pytest.mark.parametrize(
    ("head", "arrays", "named"),
    [
        ([make("Sub", ["x", "m"], ["h"], name="minus")], {"m": np.float32(0.5)}, "minus"),
        ([make("Mul", ["m", "x"], ["h"], name="times")], {"m": np.full((1, 3, 1, 1), 2, np.float32)}, "times"),
        ([make("Identity", ["x"], ["i"]), make("Div", ["i", "m"], ["h"])], {"m": np.float32(255)}, "Div->h"),
        (
            [make("BatchNormalization", ["x", "m", "m", "m", "m"], ["h"], name="bn")],
            {"m": np.ones(3, np.float32)},
            "bn",
        ),
    ],
)
def test_a_second_normalisation_is_refused(head, arrays, named):
    model = classifier(head=head, arrays=arrays)
    assert prepare(model, SPEC)
    with pytest.raises(GraphError, match=f"already holds normalisation .*{named}.*leave --mean and --std out"):
        prepare(model, NORMALISED)


def test_what_prepare_wrote_counts_as_normalisation():
    with pytest.raises(GraphError, match="already holds normalisation"):
        prepare(prepare(classifier(), NORMALISED), NORMALISED)


def test_a_bias_behind_the_first_layer_is_no_normalisation():
    assert leading_normalisation(classifier()) is None


def test_several_inputs_or_outputs_are_named():
    with pytest.raises(GraphError, match="expected one input, found 2: 'x', 'mask'"):
        prepare(classifier(inputs=("x", "mask")), SPEC)
    with pytest.raises(GraphError, match="expected one output, found 2: 'out', 'r'"):
        prepare(classifier(outputs=("out", "r")), SPEC)


def test_weights_listed_as_inputs_are_not_inputs():
    model = classifier(opset=9)
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, list(tensor.dims)))
    ready = prepare(model, SPEC)
    assert [entry.name for entry in ready.graph.input] == ["images"]
    assert same(run(ready, IMAGES), run(classifier(), IMAGES))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((3, 8, 8), r"\['n', 3, 8, 8\], the input spec says \['batch', 3, 4, 4\]; give its real shape"),
        ((4, 4, 3), "it is NHWC"),
        ((3, 4), r"\['n', 3, 4\]"),
    ],
)
def test_a_wrong_shape_prints_both(size, message):
    with pytest.raises(GraphError, match=message):
        prepare(classifier(size=size), SPEC)


def test_open_image_sizes_become_those_of_the_spec():
    ready = prepare(classifier(size=("c", "h", "w")), SPEC)
    assert [d.dim_value for d in ready.graph.input[0].type.tensor_type.shape.dim[1:]] == [3, 4, 4]


def test_other_element_types_are_refused():
    with pytest.raises(GraphError, match="input 'x' is INT64"):
        prepare(classifier(kind=TensorProto.INT64), SPEC)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_named(value):
    model = classifier()
    weight = np.zeros((5, 3, 3, 3), np.float32)
    weight[0, 0, 0, 0] = value
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    with pytest.raises(GraphError, match="weight 'w' holds NaN or infinity"):
        prepare(model, SPEC)


def test_labels_instead_of_logits_are_refused():
    model = classifier(tail=("Flatten", ("ArgMax", [], {"axis": 1, "keepdims": 1})), out_shape=("n", 1))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(GraphError, match="is INT64, expected float logits; export the model before its ArgMax"):
        prepare(model, SPEC)


def test_a_map_of_logits_is_refused_and_a_single_pixel_is_flattened():
    ready = prepare(classifier(tail=("Identity",), out_shape=("n", 5, 1, 1)), SPEC)
    assert same(run(ready, IMAGES), run(classifier(), IMAGES))
    pad = {"pads": np.array([0, 0, 0, 0, 0, 0, 1, 1])}
    map_of_logits = classifier(tail=(("Pad", ["pads"], {}),), arrays=pad, out_shape=("n", 5, 2, 2))
    with pytest.raises(GraphError, match=r"has shape .*expected \(batch, classes\)"):
        prepare(map_of_logits, SPEC)


def test_double_logits_are_cast():
    model = classifier(tail=("Flatten", ("Cast", [], {"to": TensorProto.DOUBLE})))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    found = run(prepare(model, SPEC), IMAGES)
    assert found.dtype == np.float32
    assert same(found, run(classifier(), IMAGES))


def test_float16_graphs_become_float32():
    model = classifier(kind=TensorProto.FLOAT16, dtype=np.float16)
    ready = prepare(model, SPEC)
    assert {t.data_type for t in ready.graph.initializer} == {TensorProto.FLOAT}
    assert same(run(ready, IMAGES), run(model, IMAGES.astype(np.float16)).astype(np.float32), atol=5e-3)
    assert "float16 became float32" in notes(ready)[0]


PIXELS = (IMAGES * 255).round().astype(np.uint8)
TO_FLOAT = [make("Cast", ["x"], ["f"], to=TensorProto.FLOAT), make("Div", ["f", "m"], ["h"], name="div")]


def test_a_float_graph_on_pixels_takes_images():
    model = classifier(kind=TensorProto.UINT8, head=TO_FLOAT, arrays={"m": np.float32(255)})
    ready = prepare(model, SPEC)
    assert same(run(ready, PIXELS.astype(np.float32) / np.float32(255)), run(model, PIXELS))
    assert not {node.op_type for node in ready.graph.node} & {"Cast", "QuantizeLinear"}
    assert "not rounded to pixels" in notes(ready)[0]
    zero_to_255 = InputSpec(channels=3, height=4, width=4, std=(1 / 255,) * 3)
    assert same(run(prepare(model, zero_to_255), IMAGES), run(ready, IMAGES))
    with pytest.raises(GraphError, match="takes uint8 pixels and normalises them itself"):
        prepare(model, NORMALISED)


def test_an_int8_graph_on_pixels_rounds_as_before():
    head = [
        make("DequantizeLinear", ["x", "s"], ["f"]),
        make("QuantizeLinear", ["f", "s"], ["q"]),
        make("DequantizeLinear", ["q", "s"], ["h"]),
    ]
    model = classifier(kind=TensorProto.UINT8, head=head, arrays={"s": np.float32(1 / 255)})
    ready = prepare(model, SPEC)
    assert same(run(ready, IMAGES), run(model, PIXELS))
    assert "which are rounded to pixels" in notes(ready)[0]


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("rest", [[-1], [5], [5, 1, 1]])
def test_a_fixed_batch_becomes_free_through_reshapes(batch, rest):
    steps = [("Reshape", ["shape"], {})] + ([("Flatten", [], {})] if len(rest) > 1 else [])
    arrays = {"shape": np.array([batch, *rest])}
    model = classifier(batch=batch, tail=steps, arrays=arrays, out_shape=(batch, 5))
    ready = prepare(model, SPEC)
    assert ready.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert same(run(ready, IMAGES), run(classifier(), IMAGES))
    assert notes(ready) == []


def test_a_batch_that_only_claims_to_be_free_is_mended():
    model = classifier(tail=(("Reshape", ["shape"], {}),), arrays={"shape": np.array([1, 5])})
    assert same(run(prepare(model, SPEC), IMAGES), run(classifier(), IMAGES))


def test_a_batch_that_other_sizes_would_break_stays_fixed_and_says_so():
    mix = [("Flatten", [], {}), ("MatMul", ["m"], {}), ("Softmax", [], {"axis": 0}), ("Identity", [], {})]
    model = classifier(batch=2, tail=mix, arrays={"m": np.eye(5, dtype=np.float32)}, out_shape=(2, 5))
    ready = prepare(model, SPEC)
    assert ready.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2
    assert ready.graph.output[0].type.tensor_type.shape.dim[0].dim_value == 2
    assert "the batch stays fixed at 2" in notes(ready)[0]
    assert same(run(ready, IMAGES[:2]), run(model, IMAGES[:2]))


@pytest.mark.parametrize("opset", range(7, 23))
def test_every_opset_from_7_to_22_keeps_its_answers(opset):
    model = classifier(opset=opset)
    model.ir_version = 8 if opset < 21 else 10
    ready = prepare(model, NORMALISED)
    found = next(o.version for o in ready.opset_import if not o.domain)
    assert found == (20 if opset < 13 else opset)
    assert notes(ready) == ([f"opset {opset} was converted to 20"] if opset < 13 else [])
    mean, std = NORMALISED.mean_std()
    assert same(run(ready, IMAGES), run(classifier(), (IMAGES - mean) / std))


@pytest.mark.parametrize("opset", [6, 99])
def test_opsets_beyond_the_range_are_refused(opset):
    with pytest.raises(GraphError, match=f"opset {opset} is outside 7 to"):
        prepare(classifier(opset=opset), SPEC)


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("behind", [(), ("Identity",)])
def test_a_softmax_at_the_end_is_seen_and_stripped(kind, behind):
    model = prepare(classifier(tail=("Flatten", (kind, [], {"axis": 1}), *behind)), SPEC)
    assert softmax_output(model).op_type == kind
    assert notes(model) == ["the output is a softmax"]
    bare = strip_softmax(model)
    onnx.checker.check_model(bare, full_check=True)
    assert softmax_output(bare) is None
    assert notes(bare) == [f"the {kind} was removed"]
    logits = run(bare, IMAGES)
    assert same(logits, run(classifier(), IMAGES))
    assert (logits.argmax(1) == run(model, IMAGES).argmax(1)).all()


def test_a_softmax_over_a_single_pixel_is_seen_only_along_the_classes():
    seen = prepare(classifier(tail=(("Softmax", [], {"axis": 1}), "Flatten")), SPEC)
    assert softmax_output(seen).op_type == "Softmax"
    assert same(run(strip_softmax(seen), IMAGES), run(classifier(), IMAGES))
    assert softmax_output(prepare(classifier(tail=(("Softmax", [], {"axis": -1}), "Flatten")), SPEC)) is None


def test_other_ends_are_left_alone():
    for tail in (
        ("Flatten",),
        ("Flatten", ("Softmax", [], {"axis": 0})),
        (("Softmax", [], {"axis": 1}), ("Relu", [], {}), "Flatten"),
    ):
        model = classifier(tail=tail)
        assert softmax_output(model) is None
        assert strip_softmax(model) == model


def test_names_in_use_give_way():
    """A graph that calls something else ``images`` and ``logits``."""
    model = classifier()
    for node in model.graph.node:
        node.input[:] = [{"c": "images", "r": "logits"}.get(name, name) for name in node.input]
        node.output[:] = [{"c": "images", "r": "logits"}.get(name, name) for name in node.output]
    ready = prepare(model, NORMALISED)
    mean, std = NORMALISED.mean_std()
    assert same(run(ready, IMAGES), run(classifier(), (IMAGES - mean) / std))


def test_an_input_that_a_branch_reads_is_renamed_there_too():
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    inner = helper.make_graph([make("Relu", ["x"], ["o"])], "inner", [], [out])
    head = [make("If", ["yes"], ["h"], then_branch=inner, else_branch=inner)]
    model = classifier(head=head, arrays={"yes": np.array(True)})
    mean, std = NORMALISED.mean_std()
    assert same(run(prepare(model, NORMALISED), IMAGES), run(model, (IMAGES - mean) / std))


def test_a_graph_that_nothing_can_run_is_an_error_of_one_line():
    model = classifier(head=[make("Conjure", ["x"], ["h"], domain="strange")])
    model.opset_import.append(helper.make_opsetid("strange", 1))
    with pytest.raises(GraphError, match="ONNX Runtime cannot run the model"):
        prepare(model, SPEC)


def test_local_functions_are_inlined():
    model = classifier(head=[make("Twice", ["x"], ["h"], domain="own")])
    body = [make("Add", ["a", "a"], ["b"])]
    function = helper.make_function("own", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    ready = prepare(model, SPEC)
    assert not ready.functions
    assert [opset.domain for opset in ready.opset_import] == [""]
    assert same(run(ready, IMAGES), run(classifier(), 2 * IMAGES))


REAL = {
    "imagenet/SqueezeNet_fp16.onnx": ((3, 224, 224), ["float16", "opset 7", "the Softmax was removed"]),
    "cifar10/cifar_wide_kw.onnx": ((3, 32, 32), ["opset 9"]),
    "cifar10/resnet_4b.onnx": ((3, 32, 32), ["opset 9"]),
    "mnist/mnist.onnx": ((1, 28, 28), ["opset 7"]),
}


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_published_models_get_a_free_batch_and_a_new_opset(name):
    path = Path(os.environ.get("RCTK_MODELS", "")) / name
    if not os.environ.get("RCTK_MODELS") or not path.is_file():
        pytest.skip(f"RCTK_MODELS holds no {name}")
    (channels, height, width), starts = REAL[name]
    ready = strip_softmax(prepare(load_onnx(path), InputSpec(channels=channels, height=height, width=width)))
    assert [note.startswith(start) for note, start in zip(notes(ready), starts, strict=True)] == [True] * len(starts)
    assert [o.version for o in ready.opset_import] == [20]
    assert ready.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
