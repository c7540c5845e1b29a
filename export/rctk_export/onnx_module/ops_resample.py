"""Resize, GridSample and AffineGrid of ONNX as torch functions."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rctk_export.onnx_module.node import Node, Op

GRID_MODES = {
    "linear": "bilinear",
    "bilinear": "bilinear",
    "nearest": "nearest",
    "cubic": "bicubic",
    "bicubic": "bicubic",
}
NEAREST: dict[str, Callable[[Tensor], Tensor]] = {
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round_prefer_floor": lambda at: torch.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: torch.floor(at + 0.5),
}
COORDINATES: dict[str, Callable[[Tensor, float, int, int], Tensor]] = {
    "half_pixel": lambda at, scale, _old, _new: (at + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda at, scale, _old, new: (at + 0.5) / scale - 0.5 if new > 1 else at * 0,
    "align_corners": lambda at, _scale, old, new: at * (old - 1) / (new - 1) if new > 1 else at * 0,
    "asymmetric": lambda at, scale, _old, _new: at / scale,
}


def resize(node: Node) -> Op:
    """Resize by nearest neighbour or linear interpolation, axis by axis."""
    mode = node.get("mode", "nearest")
    legacy = node.op == "Upsample" or node.opset < 11
    rule = node.get("coordinate_transformation_mode", "asymmetric" if legacy else "half_pixel")
    nearest = node.get("nearest_mode", "floor" if legacy else "round_prefer_floor")
    policy = node.get("keep_aspect_ratio_policy", "stretch")
    if mode not in {"nearest", "linear"} or rule not in COORDINATES or node.get("antialias", 0) or policy != "stretch":
        raise node.refuse(f"mode {mode!r} with {rule!r}, antialias or {policy!r} is not supported")
    axes = node.get("axes", None)
    scales_at, sizes_at = (1, 9) if legacy else (2, 3)

    def axis(x: Tensor, dim: int, new: int, scale: float) -> Tensor:
        old = x.shape[dim]
        if new == old and scale == 1:
            return x
        at = COORDINATES[rule](torch.arange(new, dtype=torch.float64), scale, old, new)
        if mode == "nearest":
            return x.index_select(dim, NEAREST[nearest](at).clamp(0, old - 1).long().to(x.device))
        low = at.clamp(0, old - 1).floor()
        share = (at.clamp(0, old - 1) - low).to(x).reshape([-1 if d == dim else 1 for d in range(x.ndim)])
        left, right = (p.clamp(0, old - 1).long().to(x.device) for p in (low, low + 1))
        return x.index_select(dim, left) * (1 - share) + x.index_select(dim, right) * share

    def run(x: Tensor, *given: Tensor | None) -> Tensor:
        values = (x, *given, None, None, None)
        dims = list(range(x.ndim)) if axes is None else [a % x.ndim for a in axes]
        sizes = values[sizes_at] if not legacy else None
        factors = node.get("scales", None) if legacy and values[1] is None else None
        scales = values[scales_at]
        if sizes is not None and sizes.numel():
            for dim, new in zip(dims, sizes.tolist(), strict=True):
                x = axis(x, dim, int(new), int(new) / x.shape[dim])
            return x
        for dim, factor in zip(dims, factors or ([] if scales is None else scales.tolist()), strict=True):
            x = axis(x, dim, int(x.shape[dim] * factor), float(factor))
        return x

    return run


def grid_sample(node: Node) -> Op:
    """Sample images at the positions of a grid."""
    mode, padding = GRID_MODES[node.get("mode", "linear")], node.get("padding_mode", "zeros")
    corners = bool(node.get("align_corners", 0))
    return lambda x, grid: F.grid_sample(x, grid, mode=mode, padding_mode=padding, align_corners=corners)


def affine_grid(node: Node) -> Op:
    """Turn affine matrices into a grid."""
    corners = bool(node.get("align_corners", 0))
    return lambda theta, size: F.affine_grid(theta, size.tolist(), align_corners=corners)


RESAMPLING: dict[str, Callable[[Node], Op]] = {
    "Resize": resize,
    "Upsample": resize,
    "GridSample": grid_sample,
    "AffineGrid": affine_grid,
}
