"""Function-preserving clean-up of a float classifier graph, so that planners meet few forms.

Afterwards BatchNorm is folded wherever a neighbouring layer can take it, no Identity or Dropout is left, a mean over
the image plane is a ``GlobalAveragePool``, linear layers are ``Gemm`` with ``transB=1`` on rows, padding by zeros and
constant factors sit in their convolution, narrow strided shortcuts are convolutions, average pools divide alike
everywhere, and every layer is named after its weight.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from rctk_export.copies import drop_copies, merge_reshapes
from rctk_export.graph import Graph, attributes, set_attribute
from rctk_export.pooling import uncount_overhang
from rctk_export.scaling import drop_neutral, fold_scale
from rctk_export.shapes import Shape, flattens, shapes
from rctk_export.shortcut import convolve_shortcuts

Array = npt.NDArray[Any]


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a simplified copy of ``model``; outputs agree up to float rounding."""
    graph = Graph(_copy(model))
    for rule in (
        drop_identities,
        drop_neutral,
        drop_copies,
        matmul_to_gemm,
        transpose_gemm,
        merge_reshapes,
        fold_pad,
        fold_batchnorm_back,
        fold_batchnorm_forward,
        fold_scale,
        convolve_shortcuts,
        mean_to_pool,
        uncount_overhang,
        name_layers,
    ):
        rule(graph)
    return graph.finish()


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def drop_identities(graph: Graph) -> None:
    """Remove Identity and inference Dropout nodes."""
    for node in [n for n in graph.nodes if n.op_type in {"Identity", "Dropout"}]:
        source, out = node.input[0], node.output[0]
        if out in graph.outputs:
            maker = graph.producer(source)
            if maker is None or source in graph.outputs:
                continue  # an output that is an input or a constant needs its Identity
            graph.replace_readers(source, out)
            maker.output[list(maker.output).index(source)] = out
        else:
            graph.replace_readers(out, source)
        graph.remove(node)


def matmul_to_gemm(graph: Graph) -> None:
    """Turn ``MatMul`` with a constant matrix, and the ``Add`` of a bias behind it, into ``Gemm``.

    What has more than two axes, such as tokens ``(N, T, I)``, becomes rows first and gets its shape back behind the
    layer; at most one axis may be free.
    """
    known = shapes(graph)
    for node in [n for n in graph.nodes if n.op_type == "MatMul"]:
        weight, shape = graph.constant(node, 1), known.get(node.input[0], ())
        free = sum(not isinstance(size, int) for size in shape[:-1])
        if weight is None or weight.ndim != 2 or len(shape) < 2 or free > 1:
            continue
        linear = _Linear(node.input[1], np.ascontiguousarray(weight.T), None, node.output[0])
        readers = graph.readers(linear.out)
        if len(readers) == 1 and readers[0].node.op_type == "Add" and linear.out not in graph.outputs:
            add, at = readers[0]
            bias = graph.constant(add, 1 - at)
            if bias is not None and bias.ndim <= len(shape) and _per_output(bias, weight.shape[1]):
                full = np.ascontiguousarray(np.broadcast_to(bias.reshape(-1), (weight.shape[1],)))
                linear = _Linear(_stem(linear.name, add.input[1 - at]), linear.weight, full, add.output[0])
                graph.remove(add)
        _insert_gemm(graph, node, shape, linear)
        graph.remove(node)


def _per_output(bias: Array, outputs: int) -> bool:
    """Whether a constant adds one value to each of ``outputs``, or the same to all."""
    return bias.size == 1 or (bias.size == outputs and bias.shape[-1] == outputs)


class _Linear(NamedTuple):
    """Name of a linear layer's weight, weight ``(O, I)``, bias ``(O,)``, and the tensor that it makes."""

    name: str
    weight: Array
    bias: Array | None
    out: str


def _stem(weight: str, bias: str) -> str:
    """Return the name of a layer's weight; the exporter loses it where it transposes, and keeps that of the bias."""
    return bias.removesuffix(".bias") if bias.endswith(".bias") and not weight.endswith(".weight") else weight


def _insert_gemm(graph: Graph, node: onnx.NodeProto, shape: Shape, layer: _Linear) -> None:
    """Put the Gemm of ``layer`` in front of ``node``, which reads a tensor of ``shape``."""
    source, made, flat = node.input[0], layer.out, len(shape) == 2
    if not flat:
        rows, made = graph.fresh(f"{layer.out}.rows"), graph.fresh(f"{layer.out}.flat")
        size = graph.add_constant(f"{rows}.shape", np.array([-1, shape[-1]], dtype=np.int64))
        graph.insert_before(node, [helper.make_node("Reshape", [source, size], [rows], name=rows)])
        source = rows
    inputs = [source, graph.add_constant(f"{layer.name}.T", layer.weight)]
    if layer.bias is not None:
        inputs.append(graph.add_constant(f"{layer.name}.bias", layer.bias))
    graph.insert_before(node, [helper.make_node("Gemm", inputs, [made], name=node.name, transB=1)])
    if not flat:
        sizes = [size if isinstance(size, int) else -1 for size in shape[:-1]]
        back = graph.add_constant(f"{made}.shape", np.array([*sizes, len(layer.weight)], dtype=np.int64))
        graph.insert_before(node, [helper.make_node("Reshape", [made, back], [layer.out], name=layer.out)])


def transpose_gemm(graph: Graph) -> None:
    """Store every constant Gemm weight as ``(O, I)``, with alpha and beta multiplied in and one bias per output."""
    for node in [n for n in graph.nodes if n.op_type == "Gemm"]:
        settings, weight = attributes(node), graph.constant(node, 1)
        if weight is None or settings.get("transA", 0):
            continue
        weight = weight if settings.get("transB", 0) else weight.T
        alpha, beta = settings.get("alpha", 1.0), settings.get("beta", 1.0)
        if alpha != 1 or not settings.get("transB", 0):
            graph.rewrite_constant(node, 1, np.ascontiguousarray(weight * weight.dtype.type(alpha)))
        bias = graph.constant(node, 2)
        if bias is not None and (beta != 1 or bias.shape != (len(weight),)) and bias.size in {1, len(weight)}:
            full = np.broadcast_to(bias.reshape(-1) * bias.dtype.type(beta), (len(weight),))
            graph.rewrite_constant(node, 2, np.ascontiguousarray(full))
        del node.attribute[:]
        set_attribute(node, "transB", 1)


def fold_pad(graph: Graph) -> None:
    """Move zero padding of the image plane into the convolution that alone reads it."""
    for node in [n for n in graph.nodes if n.op_type == "Pad"]:
        readers, pads = graph.readers(node.output[0]), _zero_pads(graph, node)
        if pads is None or len(pads) != 8 or any(pads[i] for i in (0, 1, 4, 5)) or min(pads) < 0 or not readers:
            continue
        if node.output[0] in graph.outputs or any(r.node.op_type != "Conv" or r.slot for r in readers):
            continue
        if any(attributes(r.node).get("auto_pad", b"NOTSET") not in {b"NOTSET", b"VALID"} for r in readers):
            continue
        for conv, _ in readers:
            old = attributes(conv).get("pads", [0, 0, 0, 0])
            set_attribute(conv, "pads", [old[0] + pads[2], old[1] + pads[3], old[2] + pads[6], old[3] + pads[7]])
            set_attribute(conv, "auto_pad", "NOTSET")
        graph.replace_readers(node.output[0], node.input[0])
        graph.remove(node)


def _zero_pads(graph: Graph, node: onnx.NodeProto) -> list[int] | None:
    settings = attributes(node)
    value = graph.constant(node, 2)
    filler = settings.get("value", 0.0) if value is None else float(value.reshape(-1)[0])
    if settings.get("mode", b"constant") != b"constant" or filler != 0 or (len(node.input) > 3 and node.input[3]):
        return None
    pads = settings.get("pads") if "pads" in settings else graph.constant(node, 1)
    return None if pads is None else [int(p) for p in pads]


def batchnorm_affine(graph: Graph, node: onnx.NodeProto) -> tuple[Array, Array] | None:
    """Return per-channel gain and offset of an inference BatchNormalization, float64; None if they are not constant."""
    parameters = [graph.constant(node, i) for i in range(1, 5)]
    gamma, beta, mean, var = (None if p is None else p.astype(np.float64) for p in parameters)
    if gamma is None or beta is None or mean is None or var is None:
        return None
    gain = gamma / np.sqrt(var + attributes(node).get("epsilon", 1e-5))
    return gain, beta - mean * gain


def fold_batchnorm_back(graph: Graph) -> None:
    """Multiply a BatchNorm into the convolution or linear layer in front of it."""
    for node in [n for n in graph.nodes if n.op_type == "BatchNormalization"]:
        affine, layer = batchnorm_affine(graph, node), graph.producer(node.input[0])
        if affine is None or layer is None or layer.op_type not in {"Conv", "Gemm"}:
            continue
        if len(graph.readers(node.input[0])) != 1 or node.input[0] in graph.outputs or not _foldable(graph, layer):
            continue
        gain, offset = affine
        weight, bias = _weight_and_bias(graph, layer)
        _store(graph, layer, weight * gain.reshape(-1, *[1] * (weight.ndim - 1)), bias * gain + offset)
        layer.output[0] = node.output[0]
        graph.remove(node)


def fold_batchnorm_forward(graph: Graph) -> None:
    """Multiply a BatchNorm into an unpadded convolution, or a linear layer behind a flatten, that alone reads it."""
    known = shapes(graph)
    for node in [n for n in graph.nodes if n.op_type == "BatchNormalization"]:
        affine, readers = batchnorm_affine(graph, node), graph.readers(node.output[0])
        if affine is None or len(readers) != 1 or node.output[0] in graph.outputs:
            continue
        layer, moved = readers[0].node, 1
        if layer.op_type in {"Flatten", "Reshape"}:
            after = graph.readers(layer.output[0])
            if len(after) != 1 or after[0].node.op_type != "Gemm" or layer.output[0] in graph.outputs:
                continue
            if not flattens(graph, known, layer):
                continue
            layer = after[0].node
        if layer.op_type not in {"Conv", "Gemm"} or not _foldable(graph, layer):
            continue
        weight, bias = _weight_and_bias(graph, layer)
        gain, offset = affine
        if layer.op_type == "Conv" and not _unpadded_dense(layer):
            continue
        moved, rest = divmod(weight.shape[1], len(gain))
        if rest:
            continue
        gain, offset = np.repeat(gain, moved), np.repeat(offset, moved)
        shape = (1, -1, *[1] * (weight.ndim - 2))
        shift = (weight * offset.reshape(shape)).reshape(len(weight), -1).sum(axis=1)
        _store(graph, layer, weight * gain.reshape(shape), bias + shift)
        graph.replace_readers(node.output[0], node.input[0])
        graph.remove(node)


def _unpadded_dense(conv: onnx.NodeProto) -> bool:
    settings = attributes(conv)
    same = settings.get("auto_pad", b"NOTSET") not in {b"NOTSET", b"VALID"}
    return not same and not any(settings.get("pads", [])) and settings.get("group", 1) == 1


def _foldable(graph: Graph, layer: onnx.NodeProto) -> bool:
    if layer.op_type == "Gemm" and not attributes(layer).get("transB", 0):
        return False
    computed_bias = len(layer.input) > 2 and bool(layer.input[2]) and graph.constant(layer, 2) is None
    return graph.constant(layer, 1) is not None and not computed_bias


def _weight_and_bias(graph: Graph, layer: onnx.NodeProto) -> tuple[Array, Array]:
    weight, bias = graph.constant(layer, 1), graph.constant(layer, 2)
    assert weight is not None
    wide = weight.astype(np.float64)
    return wide, np.zeros(len(wide)) if bias is None else np.broadcast_to(bias.astype(np.float64), (len(wide),))


def _store(graph: Graph, layer: onnx.NodeProto, weight: Array, bias: Array) -> None:
    graph.rewrite_constant(layer, 1, weight.astype(np.float32))
    if len(layer.input) > 2 and layer.input[2]:
        graph.rewrite_constant(layer, 2, bias.astype(np.float32))
    else:
        name = graph.add_constant(f"{layer.input[1].removesuffix('.weight')}.bias", bias.astype(np.float32))
        layer.input[:] = [*layer.input[:2], name]


def mean_to_pool(graph: Graph) -> None:
    """Turn a mean over height and width into ``GlobalAveragePool``, with a ``Flatten`` where the axes were dropped."""
    known = shapes(graph)
    for node in [n for n in graph.nodes if n.op_type == "ReduceMean"]:
        settings = attributes(node)
        axes = settings.get("axes") if "axes" in settings else graph.constant(node, 1)
        if axes is None or len(known.get(node.input[0], ())) != 4 or sorted(int(a) % 4 for a in axes) != [2, 3]:
            continue
        keep = settings.get("keepdims", 1)
        out = node.output[0] if keep else graph.fresh(f"{node.output[0]}.pooled")
        new = [helper.make_node("GlobalAveragePool", [node.input[0]], [out], name=node.name)]
        if not keep:
            new.append(helper.make_node("Flatten", [out], [node.output[0]], name=f"{node.name}.flatten", axis=1))
        graph.insert_before(node, new)
        graph.remove(node)


def name_layers(graph: Graph) -> None:
    """Name layers after their weights (``layer1.0.conv1``), and every other node after its first output."""
    taken: set[str] = set()
    for node in graph.nodes:
        weight = node.input[1] if node.op_type in {"Conv", "ConvTranspose", "Gemm", "MatMul"} else ""
        name = weight if weight in graph.constants else node.output[0]
        for ending in (".weight", ".T", "_weight"):
            name = name.removesuffix(ending)
        unique = name
        count = 1
        while unique in taken:
            count += 1
            unique = f"{name}#{count}"
        taken.add(unique)
        node.name = unique
