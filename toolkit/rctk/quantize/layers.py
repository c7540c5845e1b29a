"""The layers of a draft whose weights become codes: their arrays, their geometry, and the rows that they multiply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor
from torch.nn import functional as F

from rctk.compress.step import Draft
from rctk.data.split import Split
from rctk_export.graph import Graph, attributes
from rctk_export.input_spec import FloatNCHW
from rctk_export.quantize.formats import Formats
from rctk_export.quantize.grid import shaped, weight_codes, weight_scales
from rctk_export.quantize.plan import WEIGHTED, refused
from rctk_export.quantize.weight_only import linear_layers
from rctk_kernels.errors import DataError

Array = npt.NDArray[Any]
BATCH = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightLayer:
    """A convolution or linear layer with constant weights.

    Attributes:
        name: Of the node.
        initializer: Name of the weight.
        weight: ``(O, I / groups, *K)`` or ``(O, I)``, float32.
        bias: ``(O,)``; zeros where the layer has none.
        input: Tensor that it reads.
        output: Tensor that it makes.
        rectified: Whether a ReLU alone reads that.
        groups: 1 for linear layers.
        strides: Of the window, one per axis; empty for linear layers.
        dilations: Likewise.
        pads: Zeros before and after each axis, last axis first, as ``torch.nn.functional.pad`` wants them.
    """

    name: str
    initializer: str
    weight: Array
    bias: Array
    input: str
    output: str
    rectified: bool
    groups: int = 1
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()


def weight_layers(draft: Draft) -> list[WeightLayer]:
    """Return every layer of ``draft`` that can be quantized and is not kept float, in the order of the graph.

    A draft of weights alone leaves convolutions float.
    """
    graph = Graph(draft.model)
    _, readers = graph.index()
    stored = {node.name for node in linear_layers(graph)}
    found = []
    for node in graph.nodes:
        if node.op_type not in WEIGHTED or refused(graph, node, draft.keep_float):
            continue
        if draft.form == "weight-only" and node.name not in stored:
            continue
        weight, bias = graph.constant(node, 1), graph.constant(node, 2)
        assert weight is not None
        settings, after = attributes(node), readers[node.output[0]]
        axes = weight.ndim - 2
        pads = list(settings.get("pads", [0] * 2 * axes))
        found.append(
            WeightLayer(
                name=node.name,
                initializer=node.input[1],
                weight=weight.copy(),
                bias=np.zeros(len(weight), np.float32) if bias is None else _per_channel(bias, len(weight)),
                input=node.input[0],
                output=node.output[0],
                rectified=len(after) == 1 and after[0].node.op_type == "Relu",
                groups=int(settings.get("group", 1)),
                strides=tuple(settings.get("strides", [1] * axes)),
                dilations=tuple(settings.get("dilations", [1] * axes)),
                pads=tuple(side for axis in reversed(range(axes)) for side in (pads[axis], pads[axis + axes])),
            )
        )
    return found


def set_bias(graph: Graph, node: onnx.NodeProto, bias: Array) -> None:
    """Give a layer the bias ``(O,)``, also one that had none."""
    if len(node.input) > 2 and node.input[2]:
        graph.rewrite_constant(node, 2, bias.astype(np.float32))
        return
    del node.input[2:]
    node.input.append(graph.add_constant(f"{node.name}.bias", bias.astype(np.float32)))


def _per_channel(bias: Array, count: int) -> Array:
    return np.broadcast_to(bias.reshape(-1), (count,)).astype(np.float32)


def rows(layer: WeightLayer, x: Tensor, positions: Tensor) -> Tensor:
    """Return the inputs of some outputs of ``layer``.

    Args:
        layer: Multiplies them by its weight.
        x: Its input, ``(N, I, *S)`` or ``(N, I)``.
        positions: Flat indices into the outputs of one channel, ``N`` times the number of places, ``(P,)``.

    Returns:
        ``(groups, P, I / groups * K)``, so that row times weight is one output.
    """
    if not layer.strides:
        return x[positions][None]
    windows = F.pad(x, layer.pads)
    sizes = layer.weight.shape[2:]
    for axis, (size, stride, dilation) in enumerate(zip(sizes, layer.strides, layer.dilations, strict=True)):
        windows = windows.unfold(2 + axis, dilation * (size - 1) + 1, stride)
    for axis, dilation in enumerate(layer.dilations):
        taps = torch.arange(0, windows.shape[2 + len(sizes) + axis], dilation)
        windows = windows.index_select(2 + len(sizes) + axis, taps) if dilation > 1 else windows
    places = windows.shape[2 : 2 + len(sizes)]
    image, *place = torch.unravel_index(positions, (len(x), *places))
    picked = windows.movedim(1, 1 + len(sizes))[(image, *place)]  # (P, I, *K)
    return picked.reshape(len(positions), layer.groups, -1).transpose(0, 1).contiguous()


def outputs(layer: WeightLayer, y: Tensor, positions: Tensor) -> Tensor:
    """Return the outputs at ``positions``, ``(groups, P, O / groups)``; see :func:`rows`."""
    flat = y.flatten(2).transpose(1, 2).reshape(-1, y.shape[1]) if y.ndim > 2 else y
    return flat[positions].reshape(len(positions), layer.groups, -1).transpose(0, 1).contiguous()


def stored(formats: Formats, layer: WeightLayer) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return codes and scales of a layer, as ``formats`` has decided them or as the writer will choose them.

    The writer still raises scales where an integer bias would not fit; that concerns nearly dead channels only.
    """
    bits, given = formats.of_layer(layer.name), formats.weights.get(layer.name)
    if given is not None and given.codes is not None:
        return given.codes, given.scales
    scales = weight_scales(layer.weight, 0, bits, per_channel=formats.per_channel) if given is None else given.scales
    return weight_codes(layer.weight, scales, 0, bits), scales


def rounded(formats: Formats, layer: WeightLayer) -> npt.NDArray[np.float32]:
    """Return the real value of the stored weight, in its shape."""
    codes, scales = stored(formats, layer)
    return (codes * shaped(scales, codes.ndim)).astype(np.float32)


def draw(split: Split, samples: int, seed: int) -> FloatNCHW:
    """Return up to ``samples`` images of a training split, stratified; :class:`DataError` where there are none."""
    if not len(split):
        raise DataError(f"{split.name} holds no image to calibrate with; give a training split with images")
    return split.sample(samples, seed).images
