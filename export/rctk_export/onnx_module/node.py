"""One ONNX node with its attributes and constants read, and what its operator is built for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor

from rctk_kernels.errors import GraphError, UnsupportedOperatorError

Op: TypeAlias = Callable[..., Any]
"""Takes one tensor (or None) per input of the node; gives a tensor, or a tuple of them."""

WIDER = {np.dtype(np.uint16): np.int32, np.dtype(np.uint32): np.int64, np.dtype(np.uint64): np.int64}


@dataclass(frozen=True)
class Settings:
    """What all operators of one module are built for.

    Attributes:
        dtype: Every float of the graph, whatever the file stores: float32 in fast mode, float64 in exact mode.
        exact: Whether floats are float64 and results those of the reference engine, operation by operation.
        ste: Gradient of rounding outside the clip range: 0 (``clipped``) or 1 (``identity``).
        batch: Batch size that the file fixes; None where it is dynamic, or the node does not depend on images.
        coded: Whether the graph is quantized, so that values may be integer codes.
    """

    dtype: torch.dtype = torch.float32
    exact: bool = False
    ste: Literal["clipped", "identity"] = "clipped"
    batch: int | None = None
    coded: bool = False


class Constant(NamedTuple):
    """A tensor that the file holds.

    Attributes:
        tensor: Floats in the settings' dtype; 4-bit integers as int8, unsigned 16 to 64 bits one size wider.
        kind: The ONNX element type as stored, ``TensorProto.INT8`` and so on.
    """

    tensor: Tensor
    kind: int


def read_tensor(proto: TensorProto, dtype: torch.dtype) -> Constant:
    """Read an ONNX tensor; floats become ``dtype``."""
    array = numpy_helper.to_array(proto)
    if array.dtype.kind in "OUSc":
        raise GraphError(f"tensor {proto.name!r} holds strings or complex numbers, which no classifier needs")
    if array.dtype.kind == "V" or array.dtype.name.startswith(("float", "bfloat")):
        array = array.astype(np.float64)
    elif array.dtype.name in {"int4", "uint4", "int2", "uint2"}:
        array = array.astype(np.int8)
    array = array.astype(WIDER.get(array.dtype, array.dtype))
    tensor = torch.from_numpy(np.array(array, order="C"))
    return Constant(tensor.to(dtype) if tensor.is_floating_point() else tensor, proto.data_type)


@dataclass
class Node:
    """One node of the graph.

    Attributes:
        inputs: Names; ``""`` for one that is left out.
        attributes: Numbers, texts, lists of them, or an ONNX tensor.
        opset: Version of the ai.onnx operators that the file imports.
        constants: Every tensor known at construction, by name.
        feeds_quantizer: Whether each consumer is a QuantizeLinear.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    opset: int
    domain: str = ""
    settings: Settings = field(default_factory=Settings)
    constants: Mapping[str, Constant] = field(default_factory=dict)
    feeds_quantizer: bool = False

    @classmethod
    def read(cls, proto: onnx.NodeProto, opset: int) -> Node:
        """Read what the file says; texts are decoded."""
        attributes = {a.name: _text(onnx.helper.get_attribute_value(a)) for a in proto.attribute}
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        inputs = tuple(proto.input)
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        return cls(proto.op_type, proto.name, inputs, tuple(proto.output), attributes, opset, domain)

    @property
    def where(self) -> str:
        """How messages call this node."""
        op = "QuantizeLinear" if self.op == "FakeQuantize" else self.op  # ours; the file says QuantizeLinear
        return f"{op} node {self.name or self.outputs[0]!r}"

    def refuse(self, reason: str) -> UnsupportedOperatorError:
        """Word the error for a form of this operator that is not implemented."""
        return UnsupportedOperatorError(
            f"{self.where}: {reason}; export the model without it, or keep that part outside the graph"
        )

    def get(self, name: str, default: Any) -> Any:
        """Return an attribute, or its default."""
        return self.attributes.get(name, default)

    def constant(self, index: int) -> Constant | None:
        """Return input ``index`` if it is known at construction."""
        return self.constants.get(self.inputs[index]) if index < len(self.inputs) and self.inputs[index] else None

    def has(self, index: int) -> bool:
        """Whether input ``index`` is given at all."""
        return index < len(self.inputs) and bool(self.inputs[index])

    def integers(self, name: str, index: int) -> Callable[[Tensor | None], list[int] | None]:
        """Return a reader of integers from attribute ``name`` or from input ``index``, at construction if possible."""
        known = self.constant(index)
        if name in self.attributes or not self.has(index) or known is not None:
            fixed = self.attributes.get(name) if known is None else known.tensor.reshape(-1).tolist()
            return lambda _value: None if fixed is None else list(fixed)
        return lambda value: None if value is None else [int(v) for v in value.reshape(-1).tolist()]

    def number(self, name: str, index: int, default: float | None) -> float | None:
        """Return a number from attribute ``name`` or constant input ``index``; refused where it is computed."""
        if self.has(index):
            known = self.constant(index)
            if known is None:
                raise self.refuse(f"input {self.inputs[index]!r} must be a constant")
            return float(known.tensor.reshape(-1)[0]) if known.tensor.numel() else default
        value = self.attributes.get(name, default)
        return None if value is None else float(value)


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Sequence) and not isinstance(value, str) and value and isinstance(value[0], bytes):
        return [item.decode("utf-8", "replace") for item in value]
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
