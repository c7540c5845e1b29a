"""The linter on files of ONNX Runtime's own quantizer, with its defaults and with settings made for TensorRT."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from rctk_export.lint import lint
from rctk_export.lint.fusion import fusion_report


class Images(CalibrationDataReader):
    def __init__(self):
        rng = np.random.default_rng(0)
        self.batches = iter([{"images": rng.random((4, 3, 8, 8), dtype=np.float32)} for _ in range(2)])

    def get_next(self):
        return next(self.batches, None)


@pytest.fixture(scope="module")
def float_model():
    """Two convolutions with a residual add and a linear layer, in float."""
    rng = np.random.default_rng(0)
    arrays = {
        "w1": rng.normal(size=(4, 3, 3, 3)) * 0.2,
        "w2": rng.normal(size=(4, 4, 3, 3)) * 0.2,
        "w3": rng.normal(size=(5, 4)),
        "b1": rng.normal(size=4),
        "b2": rng.normal(size=4),
        "b3": rng.normal(size=5),
    }
    make = helper.make_node
    nodes = [
        make("Conv", ["images", "w1", "b1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        make("Relu", ["c1"], ["r1"], name="relu1"),
        make("Conv", ["r1", "w2", "b2"], ["c2"], name="conv2", pads=[1, 1, 1, 1]),
        make("Add", ["c2", "r1"], ["s"], name="sum"),
        make("Relu", ["s"], ["r2"], name="relu2"),
        make("GlobalAveragePool", ["r2"], ["p"], name="pool"),
        make("Flatten", ["p"], ["f"], name="flat"),
        make("Gemm", ["f", "w3", "b3"], ["logits"], name="fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "float",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def quantize(float_model, tmp_path, **settings):
    path = tmp_path / "int8.onnx"
    quantize_static(float_model, path, Images(), quant_format=QuantFormat.QDQ, **settings)
    return onnx.load(path)


def rules(model, target):
    return {finding.rule for finding in lint(model, target)}


def test_the_default_output_is_refused_for_tensorrt(float_model, tmp_path):
    found = rules(quantize(float_model, tmp_path), "tensorrt")
    assert found >= {"zero-point-zero", "int32-dequantize", "add-both-quantized"}


def test_the_default_output_is_slow_on_x86(float_model, tmp_path):
    assert "activation-uint8" in rules(quantize(float_model, tmp_path), "cpu")


def test_settings_for_tensorrt_leave_no_rule_about_numbers_broken(float_model, tmp_path):
    """The settings that NVIDIA's model optimizer passes on; only the placement on the add stays."""
    every = {node.op_type for node in float_model.graph.node}
    model = quantize(
        float_model,
        tmp_path,
        per_channel=True,
        op_types_to_quantize=["Conv", "Gemm", "Add", "GlobalAveragePool"],
        extra_options={
            "QuantizeBias": False,
            "ActivationSymmetric": True,
            "AddQDQPairToWeight": True,
            "DedicatedQDQPair": False,
            "ForceQuantizeNoInputCheck": True,
            "QDQDisableWeightAdjustForInt32Bias": True,
            "QDQOpTypePerChannelSupportToAxis": {"Conv": 0, "ConvTranspose": 1},
            "OpTypesToExcludeOutputQuantization": sorted(every),
        },
    )
    assert rules(model, "tensorrt") == {"add-both-quantized"}


def test_uint8_settings_are_clean_on_x86_and_fully_fused(float_model, tmp_path):
    model = quantize(
        float_model, tmp_path, per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8
    )
    assert [finding for finding in lint(model, "cpu") if finding.severity == "error"] == []
    assert fusion_report(model).float == ()
