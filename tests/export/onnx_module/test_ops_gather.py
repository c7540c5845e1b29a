"""Operators that pick entries by their coordinates agree with ONNX Runtime, at any batch size."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from onnx import helper  # noqa: E402
from torch import nn  # noqa: E402

from rctk_export.capture import capture  # noqa: E402
from rctk_export.input_spec import InputSpec  # noqa: E402
from rctk_export.onnx_module import OnnxModule  # noqa: E402


@pytest.mark.parametrize(
    "places", [[[1], [0], [-1]], [[1, 0], [2, -2]], [[[0, 1, 2]], [[3, 4, 5]]]], ids=["blocks", "rows", "values"]
)
def test_coordinates_agree(tools, agrees, places):
    nodes = [
        helper.make_node("Transpose", ["x"], ["moved"], perm=[1, 2, 3, 0]),
        helper.make_node("GatherND", ["moved", "c"], ["picked"]),
        helper.make_node("Reshape", ["picked", "rows"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["y"], perm=[1, 0]),
    ]
    count = np.prod(np.shape(places)[:-1]) * np.prod((4, 5, 6)[np.shape(places)[-1] :], dtype=int)
    constants = {"c": np.array(places, dtype=np.int64), "rows": np.array([count, -1], dtype=np.int64)}
    agrees(tools.graph_of(nodes, constants, shape=(4, 5, 6)), tools.images((4, 5, 6)))


def test_coordinates_per_batch_entry_agree(tools, agrees):
    places = np.array([[[0, 1], [2, -1]], [[3, 0], [1, 1]]], dtype=np.int64)
    model = tools.one_node("GatherND", places, shape=(4, 5, 6), batch=2, batch_dims=1)
    agrees(model, tools.images((4, 5, 6), count=2))


def test_pooling_to_a_size_that_does_not_divide_the_image_is_computed():
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d(3), nn.Flatten()).eval()
    images = torch.rand(2, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    twin = OnnxModule(capture(module, InputSpec(channels=1, height=5, width=5)))
    torch.testing.assert_close(twin(images), module(images))
