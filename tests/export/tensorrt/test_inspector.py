"""The inspector's JSON in the forms of TensorRT 8.6 to 11.3, and what is read out of it."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest

from rctk_export.tensorrt.inspector import EngineReport, read_layers, report
from rctk_kernels.errors import EngineError


class Wanted(NamedTuple):
    name: str
    quantizers: tuple[str, ...] = ("x.dq", "w.dq")
    cause: str = ""


def old(kind):
    return {"Name": "t", "Location": "Device", "Dimensions": [1, 32, 8, 8], "Format/Datatype": kind}


INT8, FP32 = "Thirty-two wide channel vectorized row major Int8 format", "Row major linear FP32"
TEN = {
    "Layers": [
        {
            "Name": "Reformatting CopyNode for Input Tensor 0 to images.q",
            "LayerType": "Reformat",
            "Inputs": [old(FP32)],
            "Outputs": [old(INT8)],
            "ParameterType": "Reformat",
            "TacticName": "",
        },
        {
            "Name": "w1 + w1.q + /features/conv1/Conv + PWN(/features/relu/Relu)",
            "LayerType": "CaskConvolution",
            "Inputs": [old(INT8)],
            "Outputs": [old("Channel major INT8 format")],
            "ParameterType": "Convolution",
            "Weights": {"Type": "Int8", "Count": 864},
            "TacticName": "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32",
            "Metadata": "[ONNX Layer: w1.q]\x1e[ONNX Layer: /features/conv1/Conv]\x1e[ONNX Layer: /features/relu/Relu]",
        },
        {
            "Name": "/features/conv10/Conv",
            "LayerType": "CaskConvolution",
            "Inputs": [old("Row major linear FP16 format")],
            "Outputs": [old("Row major linear FP16 format")],
            "TacticName": "sm80_xmma_fprop_f16f16",
        },
    ],
    "Bindings": ["images", "logits"],
}
ELEVEN = {
    "Layers": [
        {
            "Name": "fc + bias",
            "LayerType": "gemm",
            "Inputs": [{"Name": "flat", "Format": "kLINEAR", "DataType": "Int8", "Dimensions": [1, 64]}],
            "Outputs": [{"Name": "logits", "Format": "kLINEAR", "DataType": "Float", "Dimensions": [1, 10]}],
            "TacticName": "sm100_gemm_i8",
        },
        {
            "Name": "last",
            "LayerType": "gemm",
            "Inputs": [{"Name": "x", "Format": "kLINEAR", "Data Type": "BF16"}],
            "Outputs": [],
        },
    ],
    "I/O Tensors": [{"Name": "images", "IOMode": "Input", "DataType": "Float", "ProfileInfo": []}],
}


def read(values):
    return read_layers(json.dumps(values))


def test_a_recorded_sample_of_ten():
    found = report(read(TEN), [Wanted("/features/conv1/Conv"), Wanted("/features/conv10/Conv")])
    assert (found.layers, found.reformats, found.quantized) == (3, 1, 2)
    first, second = found.placed
    assert (first.arithmetic, first.tactic[-12:]) == ("int8", "i8i8_i8i32_f32"[-12:])
    assert second.arithmetic == "float"
    assert second.cause == "quantized by 'x.dq' and 'w.dq', which did not fuse with it; it computes in fp16"


def test_a_recorded_sample_of_eleven():
    found = report(read(ELEVEN), [Wanted("fc"), Wanted("last", cause="its weight comes from 'w' in float")])
    assert [place.arithmetic for place in found.placed] == ["int8", "float"]
    assert found.placed[1].cause == "its weight comes from 'w' in float"
    assert found.quantized == 1
    assert found.warning == ""


def test_the_data_types_of_both_schemas():
    kinds = {
        INT8: "int8",
        FP32: "fp32",
        "Channel major FP16 format where channel % 8 == 0": "fp16",
        "Row major linear BFloat16 format": "bf16",
        "Row major linear Int32 format": "int32",
        "something new": "",
    }
    layers = read({"Layers": [{"Name": "l", "LayerType": "x", "Inputs": [old(kind)]} for kind in kinds]})
    assert [layer.inputs[0] for layer in layers] == list(kinds.values())


def test_a_name_is_found_whole_and_not_as_part_of_another():
    (layer,) = read({"Layers": [{"Name": "conv10 + relu1", "Inputs": [old(INT8)]}]})
    assert layer.holds("conv10")
    assert layer.holds("relu1")
    assert not layer.holds("conv1")
    assert not layer.holds("relu")


def test_a_block_that_shows_nothing_hides_its_layers():
    block = {"Name": "{ForeignNode[conv1...fc]}", "LayerType": "Myelin", "Inputs": [old(FP32)]}
    found = report(read({"Layers": [block]}), [Wanted("conv1"), Wanted("conv2")])
    assert [place.arithmetic for place in found.placed] == ["hidden", "hidden"]
    assert "2 of 2 quantized layers are inside blocks" in found.warning
    on_dla = {"Name": "{ForeignNode[conv1...fc]}", "LayerType": "DLA"}
    assert report(read({"Layers": [on_dla]}), [Wanted("conv1")]).on_dla == 1


def test_a_layer_that_vanished_is_missing():
    assert report(read(ELEVEN), [Wanted("gone")]).placed[0].arithmetic == "missing"


def test_an_engine_that_mostly_runs_float_is_warned_of_and_a_float_one_is_not():
    floats = {"Layers": [{"Name": f"c{i}", "LayerType": "conv", "Inputs": [old(FP32)]} for i in range(4)]}
    floats["Layers"][0]["Inputs"] = [old(INT8)]
    found = report(read(floats), [Wanted(f"c{i}") for i in range(4)])
    assert found.warning.startswith("only 1 of 4 quantized layers run in int8")
    assert report(read(floats), [Wanted(f"c{i}", cause="float") for i in range(4)]).warning == ""


def test_a_report_survives_the_record():
    found = report(read(TEN), [Wanted("/features/conv1/Conv")])
    assert EngineReport.from_dict(json.loads(json.dumps(found.as_dict()))) == found


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"Layers": null}x'])
def test_what_is_no_json_with_layers_is_refused(text):
    with pytest.raises(EngineError, match="no JSON with layers"):
        read_layers(text)


def test_an_engine_that_shows_names_only_is_refused():
    with pytest.raises(EngineError, match="without detailed verbosity"):
        read_layers('{"Layers": ["conv1", "fc"], "Bindings": ["images", "logits"]}')
