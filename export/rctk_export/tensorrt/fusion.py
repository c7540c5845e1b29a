"""What TensorRT should make of a Q/DQ graph: which layers run in int8, what they take in, and what they write.

Rules of NVIDIA's developer guide for explicit quantization: a layer whose inputs are all dequantized runs in int8; the
Q behind it moves backwards into it, through activations and operators that only move values; at a residual add the
layer takes the add in where the other branch is dequantized. A prediction, made without a GPU: what an engine really
became, its inspector says (:mod:`rctk_export.tensorrt.inspector`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx
from onnx import NodeProto

from rctk_export.lint.view import COMMUTING, View, label, wide

Arithmetic = Literal["int8", "float"]
ACTIVATIONS = {"Relu", "Clip", "LeakyRelu"}
"""What a convolution takes in behind itself."""
POOLS = {"AveragePool", "GlobalAveragePool"}


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One layer, or one pooling that computes, as it should run.

    Attributes:
        name: Of the node.
        arithmetic: In which it computes.
        takes_in: Nodes behind it that need no kernel of their own.
        writes: What it hands on.
        cause: Why it computes or writes float; empty where all is int8, or where it writes the output of the model.
    """

    name: str
    arithmetic: Arithmetic
    takes_in: tuple[str, ...] = ()
    writes: Arithmetic = "float"
    cause: str = ""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A graph as TensorRT should run it.

    Attributes:
        kernels: Layers and poolings, in graph order.
        conversions: Q and DQ that need a kernel of their own; the first Q always does.
        adds: Residual adds that no layer takes in.
    """

    kernels: tuple[Kernel, ...]
    conversions: tuple[str, ...] = ()
    adds: tuple[str, ...] = ()
    layers: tuple[str, ...] = field(default=(), repr=False)

    def named(self, name: str) -> Kernel:
        """Return the kernel of a node."""
        return next(kernel for kernel in self.kernels if kernel.name == name)

    @property
    def int8(self) -> int:
        """Number of layers that should run in int8."""
        return sum(kernel.arithmetic == "int8" for kernel in self.kernels if kernel.name in self.layers)

    @property
    def causes(self) -> dict[str, str]:
        """Why kernels compute or write float, by name."""
        return {kernel.name: kernel.cause for kernel in self.kernels if kernel.cause}


def predict(model: onnx.ModelProto) -> Prediction:
    """Predict how TensorRT runs ``model``, a Q/DQ graph for the target ``tensorrt``; the model is not changed."""
    view = View(model)
    walker = _Walker(view)
    kernels = [
        walker.kernel(node)
        for node in view.graph.nodes
        if node in view.layers or (node.op_type in POOLS and not view.is_constant(node.input[0]))
    ]
    int8 = {kernel.name for kernel in kernels if kernel.arithmetic == "int8"}
    return Prediction(
        kernels=tuple(kernels),
        conversions=tuple(walker.conversions(int8)),
        adds=tuple(name for name in map(label, _adds(view)) if name not in walker.taken),
        layers=tuple(label(node) for node in view.layers),
    )


def _adds(view: View) -> list[NodeProto]:
    adds = [node for node in view.graph.nodes if node.op_type == "Add"]
    return [node for node in adds if not any(view.is_constant(tensor) for tensor in node.input)]


class _Walker:
    def __init__(self, view: View) -> None:
        self.view = view
        self.taken: set[str] = set()

    def kernel(self, node: NodeProto) -> Kernel:
        view = self.view
        slots = node.input[:1] if node.op_type in POOLS else node.input[:2]
        floats = [tensor for tensor in slots if not view.dequantizers(tensor)]
        taken, writes, why = self._behind(node, bool(floats))
        if floats:
            lost = " and ".join(f"{tensor!r} is float" for tensor in floats)
            return Kernel(name=label(node), arithmetic="float", takes_in=taken, writes=writes, cause=lost)
        if node.op_type in POOLS and writes == "float":
            return Kernel(name=label(node), arithmetic="float", takes_in=taken, cause=why or "its output is float")
        return Kernel(name=label(node), arithmetic="int8", takes_in=taken, writes=writes, cause=why)

    def _behind(self, node: NodeProto, computes_float: bool) -> tuple[tuple[str, ...], Arithmetic, str]:
        """Follow the output of ``node`` to where it becomes int8, or cannot."""
        view, tensor = self.view, node.output[0]
        taken: list[str] = []
        while True:
            users = [user.node for user in view.users(tensor)]
            if tensor in view.graph.outputs:
                return tuple(taken), "float", ""
            if users and all(user.op_type == "QuantizeLinear" for user in users):
                if not self._one_scale(users):
                    return tuple(taken), "float", "it is quantized with several scales"
                taken += [label(user) for user in users]
                self.taken.update(taken)
                return tuple(taken), "int8", ""
            if len(users) != 1:
                names = ", ".join(label(user) for user in users if user.op_type != "QuantizeLinear")
                return tuple(taken), "float", f"its output is read in float by {names}" if users else ""
            (user,) = users
            stop = self._stop(user, tensor, computes_float)
            if stop:
                return tuple(taken), "float", stop
            if user.op_type not in COMMUTING:
                taken.append(label(user))
                self.taken.add(label(user))
            tensor = user.output[0]

    def _one_scale(self, quantizers: list[NodeProto]) -> bool:
        scales = [self.view.quantizers[node.output[0]].scale for node in quantizers]
        return len({tuple(np.atleast_1d(wide(scale)).tolist()) for scale in scales if scale is not None}) == 1

    def _stop(self, user: NodeProto, tensor: str, computes_float: bool) -> str:
        """Return why a layer cannot take in ``user``; empty where it can."""
        view = self.view
        if user.op_type in ACTIVATIONS or user.op_type in COMMUTING:
            return ""
        if user.op_type != "Add":
            return f"{label(user)!r} reads it in float"
        other = next((name for name in user.input if name != tensor), tensor)
        if view.is_constant(other):
            return ""
        if label(user) in self.taken:
            return f"{label(user)!r} belongs to another layer"
        if computes_float or view.dequantizers(other):
            return ""
        return f"the other branch of {label(user)!r} is float, so this one is, too"

    def conversions(self, int8: set[str]) -> list[str]:
        """Return Q that no kernel took in, and DQ that an operator other than an int8 kernel reads."""
        activations = {name: q for name, q in self.view.quantizers.items() if q.role == "activation"}
        quantize = [label(q.node) for q in activations.values() if q.quantizes and label(q.node) not in self.taken]
        back = [label(q.node) for name, q in activations.items() if not q.quantizes and not self._absorbed(name, int8)]
        return quantize + back

    def _absorbed(self, tensor: str, int8: set[str]) -> bool:
        users = [user.node for user in self.view.users(tensor)]
        if tensor in self.view.graph.outputs or not users:
            return False
        return all(
            self._absorbed(user.output[0], int8)
            if user.op_type in COMMUTING
            else label(user) in int8 or label(user) in self.taken
            for user in users
        )
