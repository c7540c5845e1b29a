"""Resize, GridSample and AffineGrid agree with ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from onnx import helper  # noqa: E402

from rctk_export.onnx_module import OnnxModule  # noqa: E402
from rctk_kernels.errors import UnsupportedOperatorError  # noqa: E402

SHAPE = (2, 5, 6)
SCALES = np.array([1, 1, 2, 1.5], dtype=np.float32)
SMALLER = np.array([1, 1, 0.6, 0.5], dtype=np.float32)
SIZES = np.array([3, 2, 7, 4], dtype=np.int64)
RULES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scales", [SCALES, SMALLER], ids=["larger", "smaller"])
def test_resize_by_scales_agrees(tools, agrees, mode, rule, scales):
    model = tools.one_node("Resize", None, scales, shape=SHAPE, mode=mode, coordinate_transformation_mode=rule)
    agrees(model, tools.images(SHAPE))


@pytest.mark.parametrize("nearest", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
def test_resize_by_sizes_agrees(tools, agrees, nearest):
    model = tools.one_node("Resize", None, None, SIZES, shape=SHAPE, nearest_mode=nearest)
    agrees(model, tools.images(SHAPE))


def test_resize_of_stated_axes_agrees(tools, agrees):
    model = tools.one_node("Resize", None, None, SIZES[2:], shape=SHAPE, mode="linear", axes=[2, 3])
    agrees(model, tools.images(SHAPE))


@pytest.mark.parametrize(("op", "opset"), [("Resize", 10), ("Upsample", 9)])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_old_forms_of_resize_agree(tools, agrees, op, opset, mode):
    agrees(
        tools.one_node(op, np.array([1, 1, 2, 3], np.float32), shape=SHAPE, opset=opset, mode=mode), tools.images(SHAPE)
    )


@pytest.mark.parametrize("attributes", [{"mode": "cubic"}, {"antialias": 1, "mode": "linear"}])
def test_other_forms_of_resize_are_refused_by_name(tools, attributes):
    with pytest.raises(UnsupportedOperatorError, match="Resize node 'node': mode"):
        OnnxModule(tools.one_node("Resize", None, SCALES, shape=SHAPE, **attributes))


@pytest.mark.parametrize(("opset", "mode"), [(16, "bilinear"), (20, "linear"), (20, "nearest")])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("corners", [0, 1])
def test_grid_sample_agrees(tools, agrees, opset, mode, padding, corners):
    grid = np.random.default_rng(1).uniform(-1.3, 1.3, size=(3, 4, 4, 2)).astype(np.float32)
    model = tools.one_node(
        "GridSample", grid, shape=SHAPE, opset=opset, mode=mode, padding_mode=padding, align_corners=corners
    )
    agrees(model, tools.images(SHAPE), atol=1e-5)


@pytest.mark.parametrize("corners", [0, 1])
def test_affine_grid_agrees(tools, agrees, corners):
    nodes = [
        helper.make_node("Reshape", ["x", "matrix"], ["theta"]),
        helper.make_node("AffineGrid", ["theta", "size"], ["y"], align_corners=corners),
    ]
    constants = {"matrix": np.array([-1, 2, 3], np.int64), "size": np.array([3, 1, 4, 5], np.int64)}
    agrees(tools.graph_of(nodes, constants, shape=(6,)), tools.images((6,)))
