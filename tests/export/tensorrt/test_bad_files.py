"""Files as other tools place their pairs: every violation is named with its node and a remedy.

The truth is counted from the file itself, not with the linter's own view of it.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from rctk_export.lint import lint
from rctk_export.tensorrt.fusion import predict

quantization = pytest.importorskip("onnxruntime.quantization")
make = helper.make_node
EVERY = ("Conv", "Gemm", "Add", "Relu", "GlobalAveragePool", "Flatten")
MODELOPT = {
    "QuantizeBias": False,
    "ActivationSymmetric": True,
    "AddQDQPairToWeight": True,
    "DedicatedQDQPair": False,
    "ForceQuantizeNoInputCheck": True,
    "QDQDisableWeightAdjustForInt32Bias": True,
    "QDQOpTypePerChannelSupportToAxis": {"Conv": 0, "ConvTranspose": 1},
    "OpTypesToExcludeOutputQuantization": sorted(EVERY),
}
"""What NVIDIA's model optimizer hands to ONNX Runtime's quantizer."""


class Images(quantization.CalibrationDataReader):
    def __init__(self):
        rng = np.random.default_rng(0)
        self.batches = iter([{"images": rng.random((4, 3, 8, 8), dtype=np.float32)} for _ in range(2)])

    def get_next(self):
        return next(self.batches, None)


def plain():
    """Two convolutions with a residual add and a linear layer, in float."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 4, 3, 3), "b2": (4,), "w3": (5, 4), "b3": (5,)}
    stored = [numpy_helper.from_array(rng.normal(size=s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        make("Conv", ["images", "w1", "b1"], ["c1"], name="conv1", pads=[1] * 4),
        make("Relu", ["c1"], ["r1"], name="relu1"),
        make("Conv", ["r1", "w2", "b2"], ["c2"], name="conv2", pads=[1] * 4),
        make("Add", ["c2", "r1"], ["s"], name="sum"),
        make("Relu", ["s"], ["r2"], name="relu2"),
        make("GlobalAveragePool", ["r2"], ["p"], name="pool"),
        make("Flatten", ["p"], ["f"], name="flat"),
        make("Gemm", ["f", "w3", "b3"], ["logits"], name="fc", transB=1),
    ]
    value = helper.make_tensor_value_info
    ends = [value("images", 1, ["batch", 3, 8, 8])], [value("logits", 1, ["batch", 5])]
    graph = helper.make_graph(nodes, "plain", *ends, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def ort_file(tmp_path, **settings):
    path = tmp_path / "int8.onnx"
    quantization.quantize_static(plain(), path, Images(), quant_format=quantization.QuantFormat.QDQ, **settings)
    return onnx.load(path)


def pt2e_file():
    """As torchao's x86 quantizer exports: uint8 activations with zero points on every edge, int8 weights with DQ."""
    model, rng = plain(), np.random.default_rng(1)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    arrays = {name: value for name, value in stored.items() if name.startswith("b")}
    nodes, done = [], {}

    def pair(name):
        if name not in done:
            arrays.update({f"{name}.s": np.float32(0.02), f"{name}.z": np.uint8(rng.integers(1, 255))})
            ends = [f"{name}.s", f"{name}.z"]
            nodes.append(make("QuantizeLinear", [name, *ends], [f"{name}.q"], name=f"{name}.q"))
            nodes.append(make("DequantizeLinear", [f"{name}.q", *ends], [f"{name}.dq"], name=f"{name}.dq"))
            done[name] = f"{name}.dq"
        return done[name]

    for node in model.graph.node:
        for slot, name in enumerate(node.input):
            if name.startswith("w"):
                count = len(stored[name])
                arrays[name] = rng.integers(-127, 128, stored[name].shape).astype(np.int8)
                arrays.update({f"{name}.s": np.full(count, 0.01, np.float32), f"{name}.z": np.zeros(count, np.int8)})
                ends = [name, f"{name}.s", f"{name}.z"]
                nodes.append(make("DequantizeLinear", ends, [f"{name}.dq"], name=f"{name}.dq", axis=0))
                node.input[slot] = f"{name}.dq"
            elif not name.startswith("b"):
                node.input[slot] = pair(name)
        nodes.append(node)
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), n) for n, v in arrays.items())
    return model


def named(model):
    """Return the findings as rule -> nodes, after checking that each names a node of the file and a remedy."""
    known = {node.name or node.output[0] for node in model.graph.node} | {"opset_import"}
    found = {}
    for finding in lint(model, "tensorrt"):
        assert finding.node in known or finding.node.partition("->")[2] in known, finding
        assert finding.remedy
        assert finding.message
        found.setdefault(finding.rule, set()).add(finding.node)
    return found


def truth(model):
    """Count what the parser refuses, straight from the protobuf."""
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    formats = {n.output[0]: n for n in model.graph.node if n.op_type.endswith("antizeLinear")}
    asymmetric, unsigned, integer_bias = set(), set(), set()
    for node in formats.values():
        zero = stored.get(node.input[2]) if len(node.input) > 2 else None
        if node.input[0] in formats or zero is None:  # a DQ behind its Q repeats it
            continue
        if zero.any():
            asymmetric.add(node.name)
        if zero.dtype == np.uint8:
            unsigned.add(node.name)
        if zero.dtype == np.int32:
            integer_bias.add(node.name)
    return {"zero-point-zero": asymmetric, "zero-point-int8": unsigned, "int32-dequantize": integer_bias}


def check_truth(model):
    found = named(model)
    assert {rule: found.get(rule, set()) for rule in truth(model)} == truth(model)
    return found


def test_the_default_output_of_onnx_runtime(tmp_path):
    found = check_truth(ort_file(tmp_path))
    assert found["int32-dequantize"]
    assert found["zero-point-zero"]
    assert found["add-both-quantized"] == {"sum"}


def test_the_default_output_with_unsigned_activations(tmp_path):
    kinds = {"activation_type": quantization.QuantType.QUInt8, "weight_type": quantization.QuantType.QInt8}
    found = check_truth(ort_file(tmp_path, per_channel=True, **kinds))
    assert found["zero-point-int8"]
    assert found["uint8-inside"]


def test_the_default_output_of_pt2e():
    model = pt2e_file()
    onnx.checker.check_model(model, full_check=True)
    found = check_truth(model)
    edges = {"images.q", "c1.q", "r1.q", "c2.q", "s.q", "r2.q", "p.q", "f.q"}
    assert found["zero-point-zero"] == found["zero-point-int8"] == edges
    assert found["uint8-inside"] == edges
    assert found["add-both-quantized"] == {"sum"}
    assert predict(model).adds == ("sum",)


def test_the_placement_of_the_model_optimizer_needs_one_pair_removed(tmp_path):
    """Its own pass drops the pair on the branch of the convolution; without that, this is the one thing left."""
    types = ["Conv", "Gemm", "Add", "GlobalAveragePool"]
    model = ort_file(tmp_path, per_channel=True, op_types_to_quantize=types, extra_options=MODELOPT)
    assert check_truth(model) == {"add-both-quantized": {"sum"}}
    assert predict(model).adds == ("sum",)
    add = next(node for node in model.graph.node if node.name == "sum")
    makers = {node.output[0]: node for node in model.graph.node}
    dq = makers[add.input[0]]
    q = makers[dq.input[0]]
    add.input[0] = q.input[0]
    for node in (q, dq):
        model.graph.node.remove(node)
    assert named(model) == {}
    found = predict(model)
    assert (found.adds, found.int8) == ((), 3)
