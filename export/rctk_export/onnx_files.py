"""ONNX files in and out. A file is data from a stranger: nothing is opened or allocated on its word alone.

External data stays inside the model's own folder, declared sizes must equal the bytes that are there, and an operator
may not blow up a short constant shape. What comes back holds all its weights in memory. Limits: memory that a graph
asks for while it runs, such as a large Resize, is not looked at.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]  # no stubs in onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from rctk_export.bundle import file_sha256
from rctk_kernels.errors import GraphError

__all__ = [
    "all_graphs",
    "all_tensors",
    "file_sha256",
    "load_onnx",
    "parse_onnx",
    "save_onnx",
    "serialize",
    "uses_external_data",
]

MAX_BYTES = 2**31 - 1
"""Largest model, external data included: what one protobuf message can hold, and so what can be written back."""
MAX_MADE_ELEMENTS = 2**26
"""Largest tensor (256 MiB of float32) that an operator may make out of a constant shape."""

_PACKED_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")


def load_onnx(path: Path, *, max_bytes: int = MAX_BYTES) -> ModelProto:
    """Read an ONNX file with all its weights; :class:`GraphError` says what is wrong with any other file.

    Args:
        path: The ``.onnx`` file.
        max_bytes: Refuse more than this in the file and its external data together.
    """
    return parse_onnx(_read(path, max_bytes), path, max_bytes=max_bytes)


def parse_onnx(content: bytes, path: Path, *, max_bytes: int = MAX_BYTES) -> ModelProto:
    """Return the graph in ``content`` like :func:`load_onnx`; ``path`` names it, and external data lies beside it."""
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise GraphError(
            f"{path} is not an ONNX model, or it is cut off after {len(content)} bytes; export or copy it again"
        ) from error
    if not model.graph.node or not model.graph.output or not model.opset_import or model.ir_version < 1:
        raise GraphError(f"{path} holds no ONNX graph with nodes, outputs and an opset; is it another kind of file?")
    _check_text(model, path)
    tensors = list(all_tensors(model))
    _check_sizes(tensors, path, max_bytes - len(content))
    for tensor in tensors:
        if tensor.data_location == TensorProto.EXTERNAL:
            _load_external(tensor, path)
    _check_made(model, path)
    return model


def serialize(model: ModelProto) -> bytes:
    """Return the file content of ``model``; equal models give equal bytes."""
    try:
        return bytes(model.SerializeToString(deterministic=True))
    except (EncodeError, ValueError) as error:
        raise GraphError(
            f"the ONNX model does not fit into one file of {MAX_BYTES} bytes; use a smaller one"
        ) from error


def save_onnx(model: ModelProto, path: Path) -> str:
    """Write ``model`` as one file and return its SHA-256."""
    content = serialize(model)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def uses_external_data(model: ModelProto) -> bool:
    """Return whether any tensor of ``model`` lives in another file."""
    return any(tensor.data_location == TensorProto.EXTERNAL for tensor in all_tensors(model))


def all_graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield ``graph`` and the graphs in its control-flow nodes, outermost first."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if _holds_graph(attribute) else ():
                yield from all_graphs(inner)


def all_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Yield every stored tensor: initializers and attributes, of all graphs and local functions."""
    for graph in all_graphs(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        yield from _attribute_tensors(graph.node)
    for function in model.functions:
        yield from _attribute_tensors(function.node)


def _holds_graph(attribute: AttributeProto) -> bool:
    return attribute.type in {AttributeProto.GRAPH, AttributeProto.GRAPHS}


def _attribute_tensors(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
            single = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            for sparse in (*single, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _read(path: Path, max_bytes: int) -> bytes:
    if not path.is_file():
        raise GraphError(f"there is no ONNX file {path}; check the path")
    size = path.stat().st_size
    if size == 0:
        raise GraphError(f"{path} is empty; export or copy it again")
    if size > max_bytes:
        raise GraphError(f"{path} has {size} bytes, more than the {max_bytes} that rctk reads; use a smaller model")
    try:
        return path.read_bytes()
    except OSError as error:
        raise GraphError(f"{path} cannot be read ({error.strerror}); check its permissions") from error


def _check_text(model: ModelProto, path: Path) -> None:
    """Refuse names that are no UTF-8: protobuf hands them over as bytes, and every reader would stumble later."""
    if not all(isinstance(name, str) for name in _names(model)):
        raise GraphError(f"{path} is damaged: it holds names that are not text; export or copy it again")


def _names(model: ModelProto) -> Iterator[object]:
    yield from (text for entry in model.metadata_props for text in (entry.key, entry.value))
    yield from (opset.domain for opset in model.opset_import)
    yield from (text for function in model.functions for text in (function.name, function.domain))
    for nodes in (*(graph.node for graph in all_graphs(model.graph)), *(function.node for function in model.functions)):
        for node in nodes:
            yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
            yield from (attribute.name for attribute in node.attribute)
    for graph in all_graphs(model.graph):
        yield from (tensor.name for tensor in graph.initializer)
        for value in (*graph.input, *graph.output, *graph.value_info):
            yield value.name
            yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)


def _check_sizes(tensors: Iterable[TensorProto], path: Path, budget: int) -> None:
    """Refuse tensors whose declared shape does not match the bytes that are there, before anything is allocated."""
    for tensor in tensors:
        if any(dim < 0 for dim in tensor.dims):
            raise GraphError(f"{path}: tensor {tensor.name!r} has a negative size in its shape {list(tensor.dims)}")
        count, name = math.prod(tensor.dims), f"{path}: tensor {tensor.name!r} of shape {list(tensor.dims)}"
        declared = _size_bytes(tensor.data_type, count)
        if tensor.data_location == TensorProto.EXTERNAL:
            budget -= declared
            if budget < 0:
                raise GraphError(f"{name} makes the model larger than rctk reads; use a smaller model")
        elif tensor.HasField("raw_data"):
            if len(tensor.raw_data) != declared:
                raise GraphError(f"{name} declares {declared} bytes and holds {len(tensor.raw_data)}; export it again")
        else:
            held = max(len(getattr(tensor, field)) for field in _FIELDS)
            if not _fits(tensor.data_type, count, held):
                raise GraphError(f"{name} declares {count} values and holds {held}; export it again")


def _fits(data_type: int, count: int, held: int) -> bool:
    name = _type_name(data_type)
    stored = -(-count * _PACKED_BITS.get(name, 8) // 8) * (2 if name.startswith("COMPLEX") else 1)
    return held in {stored, count}


def _type_name(data_type: int) -> str:
    try:
        return str(TensorProto.DataType.Name(data_type))
    except ValueError as error:
        raise GraphError(f"a tensor has the unknown data type {data_type}; export the model again") from error


def _size_bytes(data_type: int, count: int) -> int:
    name = _type_name(data_type)
    if name in _PACKED_BITS:
        return -(-count * _PACKED_BITS[name] // 8)
    if name == "STRING":
        return count
    if name == "UNDEFINED":
        raise GraphError("a tensor has no data type; export the model again")
    return count * int(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(data_type)).itemsize)


def _load_external(tensor: TensorProto, path: Path) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    file = _inside(entries.get("location", ""), path, tensor.name)
    declared = _size_bytes(tensor.data_type, math.prod(tensor.dims))
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or declared)
    except ValueError as error:
        raise GraphError(f"{path}: tensor {tensor.name!r} has an unreadable offset or length") from error
    end = offset + length
    if offset < 0 or length != declared or end > file.stat().st_size:
        raise GraphError(
            f"{path}: tensor {tensor.name!r} wants bytes {offset} to {end} of {file.name}, which has "
            f"{file.stat().st_size}, for {declared} bytes; copy the data file again"
        )
    with file.open("rb") as stream:
        stream.seek(offset)
        tensor.raw_data = stream.read(length)
    tensor.ClearField("data_location")
    del tensor.external_data[:]


def _inside(location: str, path: Path, name: str) -> Path:
    """Return the data file ``location`` beside ``path``; it may not leave that folder by ``..``, a root or a link."""
    wrong = f"{path}: the external data of tensor {name!r} is at {location!r}"
    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    parts = {*posix.parts, *windows.parts}
    if not location or ".." in parts or posix.is_absolute() or windows.drive or windows.root or "\0" in location:
        raise GraphError(f"{wrong}, outside the model's own folder; save the model with its data beside it")
    folder = path.parent.resolve()
    file = folder / location
    if file.resolve() != file:
        raise GraphError(f"{wrong}, which is a link; put the data file itself beside the model")
    if not file.is_file():
        raise GraphError(f"{wrong}, and there is no such file; copy it beside the model")
    return file


def _check_made(model: ModelProto, path: Path) -> None:
    """Refuse operators that make a huge tensor from a constant shape, and sparse tensors with a huge dense shape."""
    for graph in all_graphs(model.graph):
        for sparse in graph.sparse_initializer:
            _check_made_shape(sparse.dims, sparse.values.name, path)
        constants = {t.name: t for t in graph.initializer}
        constants |= {
            n.output[0]: a.t for n in graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"
        }
        for node in graph.node:
            index = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}.get(node.op_type)
            shape = None if index is None or len(node.input) <= index else constants.get(node.input[index])
            if shape is not None and shape.data_type == TensorProto.INT64:
                _check_made_shape(numpy_helper.to_array(shape).reshape(-1).tolist(), node.name or node.output[0], path)


def _check_made_shape(dims: Iterable[int], name: str, path: Path) -> None:
    shape = [int(dim) for dim in dims]
    if math.prod(max(dim, 1) for dim in shape) > MAX_MADE_ELEMENTS:
        raise GraphError(f"{path}: {name!r} would make a tensor of shape {shape}; such a model is refused")
