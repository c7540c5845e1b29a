from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from rctk.inspection import describe, graph_facts, guess_target
from rctk_export.bundle_writer import BundleWriter
from rctk_export.input_spec import InputSpec
from rctk_export.intake import prepare
from rctk_export.onnx_files import save_onnx, serialize
from rctk_export.quantize.dynamic import write_dynamic
from rctk_kernels.errors import BundleError, GraphError

SPEC = InputSpec(channels=3, height=8, width=8, mean=(0.5,) * 3)


def classifier(zero=None, *, softmax=False):
    """A convolution, a pooling and four classes; quantized with activation zero point ``zero``."""
    rng, make = np.random.default_rng(0), helper.make_node
    arrays = {"w": rng.normal(size=(4, 3, 3, 3)).astype(np.float32), "b": np.ones(4, np.float32)}
    nodes, x, w, b = [], "images", "w", "b"
    if zero is not None:
        low, high = np.full(4, 0.01, np.float32), np.full(4, 0.01, np.float32) * np.float32(1 / 255)
        arrays["w"] = rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)
        arrays |= {"ws": low, "wz": np.zeros(4, np.int8), "xs": np.float32(1 / 255), "z": zero, "ys": np.float32(0.1)}
        nodes = [
            make("QuantizeLinear", ["images", "xs", "z"], ["q"]),
            make("DequantizeLinear", ["q", "xs", "z"], ["dq"]),
            make("DequantizeLinear", ["w", "ws", "wz"], ["wdq"], axis=0),
        ]
        x, w = "dq", "wdq"
        if zero == np.uint8(0):
            arrays |= {"b": np.ones(4, np.int32), "bs": high, "bz": np.zeros(4, np.int32)}
            nodes.append(make("DequantizeLinear", ["b", "bs", "bz"], ["bdq"], axis=0))
            b = "bdq"
    nodes.append(make("Conv", [x, w, b], ["c"], name="conv"))
    last = "c"
    if zero is not None:
        nodes += [
            make("QuantizeLinear", ["c", "ys", "z"], ["cq"]),
            make("DequantizeLinear", ["cq", "ys", "z"], ["cdq"]),
        ]
        last = "cdq"
    nodes += [make("GlobalAveragePool", [last], ["p"]), make("Flatten", ["p"], ["f" if softmax else "logits"])]
    if softmax:
        nodes.append(make("Softmax", ["f"], ["logits"], axis=1))
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture
def bundle(tmp_path):
    path = tmp_path / "bundle"
    kept = [{"name": "conv", "op": "Conv", "reason": "kept float on request"}]
    with BundleWriter(path) as writer:
        writer.add("float", "", serialize(prepare(classifier(), SPEC)))
        writer.add("int8", "cpu", serialize(classifier(np.uint8(0))), {"agreement": {"clean": 0.99}, "kept_float": []})
        writer.add("int8", "tensorrt", serialize(classifier()), {"kept_float": kept})
        writer.add("plan", "tensorrt", b"not looked into")
        writer.commit(
            name="net", input=SPEC, classes=("a", "b", "c", "d"), model={"arch": "x"}, calibration={}, versions={}
        )
    return path


def test_a_bundle_with_all_its_files(bundle):
    found = describe(bundle)
    assert (found.name, found.classes, found.input, found.model) == ("net", ("a", "b", "c", "d"), SPEC, {"arch": "x"})
    assert [(f.role, f.target, f.graph is not None) for f in found.files] == [
        ("float", "", True),
        ("int8", "cpu", True),
        ("int8", "tensorrt", True),
        ("plan", "tensorrt", False),
    ]
    assert found.files[1].agreement == {"clean": 0.99}
    assert all(len(f.sha256) == 64 and f.size_bytes == (bundle / f.name).stat().st_size for f in found.files)
    assert json.loads(json.dumps(found.as_dict()))["files"][1]["graph"]["layers"][0]["arithmetic"] == "int8"


def test_the_float_file_of_a_bundle(bundle):
    graph = describe(bundle).files[0].graph
    assert (graph.opset, graph.linted_for, graph.findings, graph.runs_in_float) == (20, "", (), None)
    assert graph.inputs == ("images float [batch, 3, 8, 8]",)
    assert graph.outputs == ("logits float [batch, 4]",)
    # 6x6 outputs of 4 channels through 3x3x3 windows
    assert (graph.macs, graph.parameters, graph.integer_layers) == (36 * 4 * 27, 4 * 27 + 4, 0)
    assert graph.operators["Conv"] == 1
    assert "normalisation is inside: Sub reads the input" in graph.remarks


def test_the_int8_file_of_a_bundle(bundle):
    graph = describe(bundle).files[1].graph
    assert (graph.linted_for, graph.runs_in_float, graph.integer_layers, len(graph.layers)) == ("cpu", (), 1, 1)
    assert [finding for finding in graph.findings if finding.severity == "error"] == []
    assert graph.parameters == 4 * 27 + 4


def test_the_manifest_says_why_a_layer_is_float(bundle):
    assert describe(bundle).files[2].graph.layers[0].reason == "kept float on request"


def test_one_target_is_looked_into_and_an_absent_one_is_named(bundle):
    assert [f.graph is not None for f in describe(bundle, "cpu").files] == [True, True, False, False]
    with pytest.raises(BundleError, match="no int8 file for target 'mars'"):
        describe(bundle, "mars")


def test_a_changed_bundle_is_refused(bundle):
    path = bundle / "int8-cpu.onnx"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match="was changed"):
        describe(bundle)


def test_a_bare_float_file(tmp_path):
    digest = save_onnx(classifier(softmax=True), tmp_path / "m.onnx")
    found = describe(tmp_path / "m.onnx")
    assert (found.name, found.sha256, found.input) == ("m.onnx", digest, None)
    assert (found.files[0].role, found.files[0].graph.remarks) == ("float", ("the output is a Softmax",))


@pytest.mark.parametrize(
    ("zero", "target"), [(np.int8(0), "tensorrt"), (np.uint8(128), "cpu-mirror"), (np.uint8(0), "cpu")]
)
def test_a_bare_int8_file_is_linted_for_what_it_looks_like(tmp_path, zero, target):
    model = classifier(zero)
    assert guess_target(model) == target
    save_onnx(model, tmp_path / "m.onnx")
    found = describe(tmp_path / "m.onnx").files[0]
    assert (found.role, found.graph.linted_for) == ("int8", target)


def test_the_target_of_a_bare_file_can_be_given(tmp_path):
    save_onnx(classifier(np.uint8(0)), tmp_path / "m.onnx")
    graph = describe(tmp_path / "m.onnx", "tensorrt").files[0].graph
    assert {"zero-point-int8", "int32-dequantize"} <= {finding.rule for finding in graph.findings}


def test_a_graph_that_onnx_runtime_cannot_load_is_still_described():
    model = classifier(np.uint8(0))
    model.graph.node[-1].domain = "strange"
    model.opset_import.append(helper.make_opsetid("strange", 1))
    graph = graph_facts(model)
    assert graph.runs_in_float is None
    assert "ONNX Runtime cannot load the model" in graph.remarks[-1]


def test_several_inputs_are_a_remark():
    model = classifier()
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))
    assert "it has 2 inputs and 1 outputs; rctk runs one of each" in graph_facts(model).remarks


def test_other_files_are_named(tmp_path):
    (tmp_path / "m.pt").write_bytes(b"\x80\x04")
    with pytest.raises(GraphError, match="not an ONNX model"):
        describe(tmp_path / "m.pt")
    with pytest.raises(BundleError, match="no bundle at"):
        describe(tmp_path / "absent")


def test_a_layer_left_in_float_on_purpose_is_no_finding():
    model = classifier(np.int8(0))
    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "float weight")
    model.graph.initializer.append(weight)
    next(node for node in model.graph.node if node.name == "conv").input[1] = "float weight"
    assert "half-quantized" in {finding.rule for finding in graph_facts(model).findings}
    graph = graph_facts(model, reasons={"conv": "kept float on request"})
    assert "half-quantized" not in {finding.rule for finding in graph.findings}
    assert graph.layers[0].reason == "kept float on request"


@pytest.mark.parametrize(
    ("reason", "warned"),
    [
        ("kept float on request", False),
        ("kept float to keep the margin of accuracy", False),
        ("only linear layers store weights alone", False),
        ("no int8 form on this target", True),
        ("", True),
    ],
)
def test_float_layers_are_warned_of_unless_somebody_chose_them(reason, warned):
    model = classifier(np.uint8(0))
    extra = helper.make_node("MatMul", ["logits", "square"], ["more"], name="extra")
    model.graph.node.append(extra)
    model.graph.output[0].name = "more"
    model.graph.initializer.append(numpy_helper.from_array(np.eye(4, dtype=np.float32), "square"))
    graph = graph_facts(model, "cpu", {"extra": reason} if reason else {})
    assert (("float-layer", "extra") in {(each.rule, each.node) for each in graph.findings}) == warned
    assert (graph.integer_layers, len(graph.layers)) == (1, 2)


def test_an_evaluation_file_has_the_reasons_of_the_int8_file_it_is_made_from(tmp_path):
    float_layer = {"kept_float": [{"name": "conv", "op": "Conv", "reason": "kept float on request"}]}
    with BundleWriter(tmp_path / "bundle") as writer:
        writer.add("float", "", serialize(prepare(classifier(), SPEC)))
        writer.add("int8", "cpu", serialize(classifier()), float_layer)
        writer.add("evaluation", "cpu", serialize(classifier()), {})
        writer.commit(name="net", input=SPEC, classes=("a", "b", "c", "d"), model={}, calibration={}, versions={})
    _, shipped, evaluation = describe(tmp_path / "bundle").files
    assert [row.graph.layers[0].reason for row in (shipped, evaluation)] == ["kept float on request"] * 2


def test_a_dynamic_file_is_no_float_file(tmp_path):
    model = write_dynamic(prepare(classifier(), SPEC))
    assert "ConvInteger" in {node.op_type for node in model.graph.node}
    save_onnx(model, tmp_path / "dynamic.onnx")
    (row,) = describe(tmp_path / "dynamic.onnx").files
    graph = row.graph
    assert (row.role, graph.quantized, graph.integer_layers, len(graph.layers)) == ("int8", True, 1, 1)
    # 6x6 outputs of 4 channels through 3x3x3 windows, as in float
    assert (graph.macs, graph.parameters) == (36 * 4 * 27, 4 * 27 + 4)
    assert "ConvInteger hold integers themselves; the rules are for Q/DQ nodes, so none was applied" in graph.remarks


def test_a_float_file_is_not_quantized():
    assert not graph_facts(classifier()).quantized
