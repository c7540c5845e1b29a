"""Requests and answers of the protocol as JSON with binary tensors behind it. Nothing but numbers is ever read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np

from rctk.serve.served import OUTPUT, RefusedError, Served, checked_tensor
from rctk_export.input_spec import FloatNCHW, FloatNK


class Request(NamedTuple):
    """What a client asked."""

    id: str | None
    images: FloatNCHW
    binary: bool
    """Whether the answer is bytes behind its JSON."""


def read_request(body: bytes | bytearray, head_bytes: int | None, served: Served, most: int) -> Request:
    """Read a request; :class:`RefusedError` says what is wrong with it.

    Args:
        body: Of the HTTP request.
        head_bytes: Length of the JSON in front of binary tensors; None where all is JSON.
        served: The model.
        most: Images of a batch.
    """
    if head_bytes is not None and not 0 < head_bytes <= len(body):
        raise RefusedError("bad", f"Inference-Header-Content-Length is {head_bytes}, the body has {len(body)} bytes")
    head = _json(bytes(body[:head_bytes]))
    tail = memoryview(body)[head_bytes:] if head_bytes is not None else memoryview(b"")
    inputs = head.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(entry, dict) for entry in inputs) or not inputs:
        raise RefusedError("bad", "expected a list of tensors under 'inputs'")
    entry, name = inputs[0], head.get("id")
    shape = entry.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise RefusedError("bad", f"expected a shape of whole numbers, got {shape!r:.60}")
    checked_tensor(served, [str(each.get("name")) for each in inputs], str(entry.get("datatype")), shape, most)
    if name is not None and not isinstance(name, str):
        raise RefusedError("bad", "expected text under 'id'")
    return Request(name, _images(entry, shape, tail), _binary(head))


def answer(served: Served, request: Request, logits: FloatNK) -> tuple[bytes, int | None]:
    """Return the body, and the length of its JSON where bytes follow."""
    tensor: dict[str, Any] = {"name": OUTPUT, "datatype": "FP32", "shape": list(logits.shape)}
    tail = b""
    if request.binary:
        tail = np.ascontiguousarray(logits, dtype="<f4").tobytes()
        tensor["parameters"] = {"binary_data_size": len(tail)}
    else:
        tensor["data"] = logits.ravel().tolist()
    values = {"model_name": served.name, "model_version": served.version, "outputs": [tensor]}
    if request.id is not None:
        values["id"] = request.id
    try:
        head = json.dumps(values, allow_nan=False).encode()
    except ValueError as error:
        raise RefusedError("failed", "the model answers NaN or infinity, which JSON cannot hold") from error
    return head + tail, len(head) if request.binary else None


def _json(text: bytes) -> dict[str, Any]:
    try:
        head = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise RefusedError("bad", f"the request is not JSON of the protocol: {error}") from error
    if not isinstance(head, dict):
        raise RefusedError("bad", "the request is not a JSON object")
    return head


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _parameters(values: Mapping[str, Any]) -> Mapping[str, Any]:
    found = values.get("parameters", {})
    if not isinstance(found, dict):
        raise RefusedError("bad", "expected an object under 'parameters'")
    for key in found:
        if "shared_memory" in key or key == "classification":
            raise RefusedError("bad", f"this server does not offer {key!r}; send tensors and read logits")
    return found


def _images(entry: Mapping[str, Any], shape: list[int], tail: memoryview) -> FloatNCHW:
    size = _parameters(entry).get("binary_data_size")
    count = int(np.prod(shape))
    if size is not None:
        if type(size) is not int or size != 4 * count or len(tail) != size:
            raise RefusedError("bad", f"shape {shape} takes {4 * count} bytes, got {size} told and {len(tail)} sent")
        return np.frombuffer(tail, dtype="<f4").reshape(shape).astype(np.float32, copy=False)
    if len(tail):
        raise RefusedError("bad", "bytes follow the JSON that no tensor names by 'binary_data_size'")
    try:
        values = np.array(entry.get("data"))
    except ValueError as error:
        raise RefusedError("bad", f"'data' is not an array of numbers: {error}") from error
    if values.dtype.kind not in "iuf" or values.size != count:
        raise RefusedError("bad", f"expected {count} numbers under 'data', got {values.size} of type {values.dtype}")
    with np.errstate(over="ignore"):
        return values.astype(np.float32).reshape(shape)


def _binary(head: Mapping[str, Any]) -> bool:
    default = _parameters(head).get("binary_data_output", False) is True
    outputs = head.get("outputs") or [{"name": OUTPUT}]
    if not isinstance(outputs, list) or [isinstance(o, dict) and o.get("name") for o in outputs] != [OUTPUT]:
        raise RefusedError("bad", f"the one output is {OUTPUT!r}")
    return _parameters(outputs[0]).get("binary_data", default) is True
