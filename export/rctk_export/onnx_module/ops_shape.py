"""Operators of ONNX that move, cut, join or describe tensors, as torch functions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from onnx import TensorProto
from torch import Tensor

from rctk_export.onnx_module.node import Node, Op, read_tensor

INTEGERS: dict[int, torch.dtype] = {
    TensorProto.BOOL: torch.bool,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.UINT16: torch.int32,
    TensorProto.INT32: torch.int32,
    TensorProto.UINT32: torch.int64,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT64: torch.int64,
}
FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}


def identity(_node: Node) -> Op:
    """Pass the first input on."""
    return lambda x, *_rest: x


def dropout(node: Node) -> Op:
    """Pass the input on, as at inference."""
    mode = node.constant(2)
    if mode is not None and bool(mode.tensor.any()):
        raise node.refuse("training_mode is set")
    return lambda x, *_rest: x


def reshape(node: Node) -> Op:
    """Reshape; 0 keeps a size, -1 takes the rest, and a batch size written into the file follows the images."""
    target, zero_is_zero, batch = node.integers("shape", 1), bool(node.get("allowzero", 0)), node.settings.batch
    follows = batch is not None and node.constant(1) is not None

    def run(x: Tensor, given: Tensor | None = None) -> Tensor:
        sizes = target(given) or []
        if follows and sizes and sizes[0] == batch and -1 not in sizes[:1]:
            sizes[0] = x.shape[0]
        if not zero_is_zero:
            sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
        return x.reshape(sizes)

    return run


def flatten(node: Node) -> Op:
    """Two axes: those before ``axis`` and those from it on."""
    axis = int(node.get("axis", 1))

    def run(x: Tensor) -> Tensor:
        at = axis % x.ndim if axis < 0 else axis
        return x.reshape(math.prod(x.shape[:at]), math.prod(x.shape[at:]))

    return run


def transpose(node: Node) -> Op:
    """Permute the axes; reversed by default."""
    order = node.get("perm", None)
    return lambda x: x.permute(order if order is not None else list(range(x.ndim))[::-1])


def squeeze(node: Node) -> Op:
    """Drop axes of size 1."""
    axes = node.integers("axes", 1)

    def run(x: Tensor, given: Tensor | None = None) -> Tensor:
        drop = axes(given)
        return x.squeeze() if drop is None else x.squeeze(tuple(drop))

    return run


def unsqueeze(node: Node) -> Op:
    """Insert axes of size 1 where the result shall have them."""
    axes = node.integers("axes", 1)

    def run(x: Tensor, given: Tensor | None = None) -> Tensor:
        new = axes(given) or []
        for axis in sorted(a % (x.ndim + len(new)) for a in new):
            x = x.unsqueeze(axis)
        return x

    return run


def concat(node: Node) -> Op:
    """Join along an axis."""
    axis = int(node.get("axis", 1))

    def run(*values: Tensor) -> Tensor:
        device = next((v.device for v in values if v.device.type != "cpu"), values[0].device)
        return torch.cat([v.to(device) for v in values], dim=axis)

    return run


def split(node: Node) -> Op:
    """Cut along an axis into stated sizes, or into equal parts with a smaller last one."""
    axis, sizes, parts = int(node.get("axis", 0)), node.integers("split", 1), len(node.outputs)

    def run(x: Tensor, given: Tensor | None = None) -> tuple[Tensor, ...]:
        return torch.split(x, sizes(given) or -(-x.shape[axis] // parts), dim=axis)

    return run


def cut(node: Node) -> Op:
    """Slice with steps; negative steps walk backwards."""
    readers = [node.integers(name, i) for i, name in enumerate(("starts", "ends", "axes", "steps"), start=1)]

    def run(x: Tensor, *given: Tensor | None) -> Tensor:
        values = [*given, *[None] * (4 - len(given))]
        starts, ends, axes, steps = (read(value) for read, value in zip(readers, values, strict=True))
        starts, ends = starts or [], ends or []
        axes, steps = axes or list(range(len(starts))), steps or [1] * len(starts)
        index: list[slice] = [slice(None)] * x.ndim
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            if step > 0:
                index[axis] = slice(*slice(start, end, step).indices(x.shape[axis]))
            else:
                order = range(*slice(start, end, step).indices(x.shape[axis]))
                x = x.index_select(axis, torch.tensor(order, dtype=torch.int64, device=x.device))
        return x[tuple(index)]

    return run


def gather(node: Node) -> Op:
    """Pick entries along an axis; negative indices count from the end."""
    axis, known = int(node.get("axis", 0)), node.constant(1)
    if known is not None and known.tensor.ndim == 0:
        position = int(known.tensor)
        return lambda x, _index: x.select(axis, position)

    def run(x: Tensor, index: Tensor) -> Tensor:
        at, flat = axis % x.ndim, index.reshape(-1).to(x.device)
        picked = x.index_select(at, torch.where(flat < 0, flat + x.shape[at], flat))
        return picked.reshape(*x.shape[:at], *index.shape, *x.shape[at + 1 :])

    return run


def pad(node: Node) -> Op:
    """Pad with a constant, by reflection, with the edge or around; negative pads cut."""
    mode = node.get("mode", "constant")
    value = node.number("value", 2, 0.0) if mode == "constant" else 0.0
    pads, axes = node.integers("pads", 1), node.integers("", 3)
    if mode not in {"constant", "reflect", "edge", "wrap"}:
        raise node.refuse(f"mode {mode!r} is not supported")

    def run(x: Tensor, *given: Tensor | None) -> Tensor:
        given = (*given, None, None, None)
        amounts, chosen = pads(given[0]) or [], axes(given[2])
        half = len(amounts) // 2
        begin, end = [0] * x.ndim, [0] * x.ndim
        for i, axis in enumerate(chosen if chosen is not None else range(half)):
            begin[axis], end[axis] = amounts[i], amounts[half + i]
        if mode == "constant":
            first = next((i for i in range(x.ndim) if begin[i] or end[i]), x.ndim)
            around = [p for i in reversed(range(first, x.ndim)) for p in (begin[i], end[i])]
            return F.pad(x, around, value=value) if around else x
        for axis in range(x.ndim):
            if begin[axis] or end[axis]:
                x = x.index_select(axis, _positions(mode, x.shape[axis], begin[axis], end[axis]).to(x.device))
        return x

    return run


def _positions(mode: str, size: int, begin: int, end: int) -> Tensor:
    at = torch.arange(-begin, size + end)
    if mode == "edge":
        return at.clamp(0, size - 1)
    if mode == "wrap":
        return at % size
    period = max(2 * (size - 1), 1)
    at = at % period
    return torch.minimum(at, period - at) if size > 1 else torch.zeros_like(at)


def expand(_node: Node) -> Op:
    """Broadcast to a shape, both ways."""
    return lambda x, shape: x.expand(torch.broadcast_shapes(x.shape, tuple(shape.tolist())))


def tile(node: Node) -> Op:
    """Repeat along each axis."""
    counts = node.integers("", 1)
    return lambda x, given: x.repeat(counts(given) or [])


def cast_to(node: Node) -> Op:
    """Cast; all float types are the one float type of the module, so a cast to float16 does not round."""
    kind = int(node.attributes["to"])
    if kind not in FLOATS and kind not in INTEGERS:
        raise node.refuse(f"type {TensorProto.DataType.Name(kind)} is not supported")
    dtype = node.settings.dtype if kind in FLOATS else INTEGERS[kind]
    return lambda x: x.to(dtype)


def cast_like(_node: Node) -> Op:
    """Cast to the type of the second input."""
    return lambda x, like: x.to(like.dtype)


def shape_of(node: Node) -> Op:
    """Return the shape, or a part of it, as a tensor on the host."""
    start, end = int(node.get("start", 0)), node.get("end", None)
    return lambda x: torch.tensor(x.shape[start:end], dtype=torch.int64)


def size_of(_node: Node) -> Op:
    """Return the number of elements as a tensor on the host."""
    return lambda x: torch.tensor(x.numel(), dtype=torch.int64)


def constant_of_shape(node: Node) -> Op:
    """Fill a shape with one value."""
    proto = node.get("value", None)
    fill = (
        torch.zeros(1, dtype=node.settings.dtype) if proto is None else read_tensor(proto, node.settings.dtype).tensor
    )
    return lambda shape: fill.reshape(()).expand(tuple(shape.tolist())).clone()


def range_of(_node: Node) -> Op:
    """Count from start to limit."""
    return lambda start, limit, delta: torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def depth_to_space(node: Node) -> Op:
    """Move channels into space."""
    block, crd = int(node.attributes["blocksize"]), node.get("mode", "DCR") == "CRD"

    def run(x: Tensor) -> Tensor:
        if crd:
            return F.pixel_shuffle(x, block)
        n, c, h, w = x.shape
        parts = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return parts.reshape(n, c // block**2, h * block, w * block)

    return run


def space_to_depth(node: Node) -> Op:
    """Move space into channels."""
    block = int(node.attributes["blocksize"])

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        parts = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
        return parts.reshape(n, c * block**2, h // block, w // block)

    return run


SHAPES: dict[str, Callable[[Node], Op]] = {
    "Identity": identity,
    "Dropout": dropout,
    "Reshape": reshape,
    "Flatten": flatten,
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Concat": concat,
    "Split": split,
    "Slice": cut,
    "Gather": gather,
    "Pad": pad,
    "Expand": expand,
    "Tile": tile,
    "Cast": cast_to,
    "CastLike": cast_like,
    "Shape": shape_of,
    "Size": size_of,
    "ConstantOfShape": constant_of_shape,
    "Range": range_of,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
}
