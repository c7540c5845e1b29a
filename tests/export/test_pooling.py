"""Average pools whose windows hang over the edge mean the same to every runtime, also in int8."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from rctk_export.capture import capture
from rctk_export.graph import Graph, attributes
from rctk_export.input_spec import InputSpec
from rctk_export.onnx_module import OnnxModule
from rctk_export.quantize import PLANNERS
from rctk_export.quantize.write import write_qdq

SPEC = InputSpec(channels=3, height=8, width=9)
HANGING = [
    {"kernel_size": 3, "stride": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 2, "stride": 2, "padding": 1},
    {"kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 0)},
    {"kernel_size": 4, "stride": 3, "padding": 2},
]


def network(**pool: object) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(**pool, ceil_mode=True), nn.Conv2d(16, 4, 1)
    )
    return nn.Sequential(layers, nn.Flatten()).eval()


@pytest.mark.parametrize("settings", HANGING, ids=str)
def test_int8_pools_divide_by_what_the_float_pool_divides_by(settings):
    model = capture(network(**settings), SPEC)  # which compares it with torch
    images = torch.rand((2, *SPEC.shape), generator=torch.Generator().manual_seed(1))
    plan = PLANNERS.build("cpu").plan(Graph(model))
    with torch.no_grad():
        seen = OnnxModule(model).observe(images, plan.calibrated())
    made = write_qdq(model, plan, {name: (float(v.min()), float(v.max())) for name, v in seen.items()})
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        wanted = OnnxModule(made)(images).numpy()
    assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max()


def test_without_padding_only_the_setting_changes():
    model = capture(network(kernel_size=3, stride=2), SPEC)
    (pool,) = [node for node in model.graph.node if node.op_type == "AveragePool"]
    assert "Pad" not in [node.op_type for node in model.graph.node]
    assert attributes(pool)["ceil_mode"] == 1
    assert attributes(pool)["count_include_pad"] == 0


def test_a_pool_without_overhang_keeps_its_padding():
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d(3, 2, 1), nn.Flatten())
    (pool,) = [node for node in capture(layers.eval(), SPEC).graph.node if node.op_type == "AveragePool"]
    assert attributes(pool)["count_include_pad"] == 1
    assert attributes(pool)["pads"] == [1, 1, 1, 1]
