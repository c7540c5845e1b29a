"""Write float16 or bfloat16 into a Q/DQ graph for everything that has no Q/DQ, as strongly typed networks want it.

What lies between the images and the first Q stays float32: half precision there would move codes of the input. All
scales are rounded to the narrow type, on both sides of a pair, so that a Q and its DQ stay equal; weights become int8
codes first, computed from their original values, so none of them moves. Inputs and outputs of the file stay float32.

Sources: opset 19 (ONNX) lets scales be float16 and bfloat16, opset 22 convolutions be bfloat16; NVIDIA's strong-typing
migration guide (types come from the file only).
"""

from __future__ import annotations

from typing import Any, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from rctk_export.graph import Graph, attributes
from rctk_export.lint.view import LAYERS, View, label
from rctk_export.onnx_files import all_graphs
from rctk_kernels.errors import GraphError, QuantizationError

Narrow = Literal["fp16", "bf16"]
KINDS: dict[str, tuple[int, npt.DTypeLike, int]] = {
    "fp16": (TensorProto.FLOAT16, np.float16, 19),
    "bf16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16, 22),
}
"""ONNX type, NumPy type, and the oldest opset in which all that is needed has it."""
SCALE_ERROR = 0.01
"""Largest relative error of a rounded scale; float16 keeps 0.0005 down to scales of 6e-5."""
KEEP_FLOAT = {"Resize": (1, 2)}
"""Inputs that are float32 by definition."""


def narrow_rest(model: onnx.ModelProto, kind: Narrow) -> onnx.ModelProto:
    """Return a copy of ``model`` whose float parts are ``kind``; :class:`QuantizationError` where a value does not fit.

    Args:
        model: Q/DQ or float graph in float32, weights in memory.
        kind: ``fp16`` or ``bf16``.
    """
    if len(list(all_graphs(model.graph))) > 1:
        raise GraphError(f"{model.graph.name} holds If, Loop or Scan; --precision-rest {kind} cannot look into them")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _fold_weights(copy)
    return _Narrower(copy, kind).run()


def _fold_weights(model: onnx.ModelProto) -> None:
    """Replace Q on a stored weight by its codes; the DQ stays."""
    view = View(model)
    graph = view.graph
    for q in list(view.quantizers.values()):
        if not q.quantizes or q.role != "weight" or q.data not in graph.constants or q.scale is None or q.zero is None:
            continue
        if str(q.zero.dtype) != "int8":
            continue
        scale, zero, data = (np.asarray(part, dtype=np.float64) for part in (q.scale, q.zero, graph.constants[q.data]))
        if scale.ndim == 1 and scale.size > 1:
            sizes = [1] * data.ndim
            sizes[1 if q.axis is None else q.axis] = -1
            scale, zero = scale.reshape(sizes), zero.reshape(sizes)
        codes = np.clip(np.rint(data / scale) + zero, -128, 127).astype(np.int8)
        model.graph.initializer.append(numpy_helper.from_array(codes, q.node.output[0]))
        model.graph.node.remove(q.node)


class _Narrower:
    def __init__(self, model: onnx.ModelProto, kind: Narrow) -> None:
        self.model, self.kind = model, kind
        self.type, self.dtype, self.opset = KINDS[kind]
        self.view = View(model)
        self.graph = Graph(model)
        self.constants = {name: value for name, value in self.graph.constants.items() if value.dtype == np.float32}
        self.types = self.view.types
        self.narrow: set[str] = set()
        self.made: dict[str, TensorProto] = {}
        self.nodes: list[NodeProto] = []

    def run(self) -> onnx.ModelProto:
        for node in list(self.model.graph.node):
            if node.op_type != "Constant":
                self._node(node)
            elif node.output[0] not in self.constants:
                self.nodes.append(node)
        outputs = [end.name for end in self.model.graph.output if end.name in self.narrow]
        for name in outputs:
            self._widen_output(name)
        graph = self.model.graph
        del graph.node[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        self._store()
        for entry in self.model.opset_import:
            if entry.domain in {"", "ai.onnx"}:
                entry.version = max(entry.version, self.opset)
        self.model.ir_version = max(self.model.ir_version, 10)
        return self.model

    def _node(self, node: NodeProto) -> None:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            self._pair(node)
        elif self._stays_wide(node):
            self._constants(node, narrow=False)
        else:
            self._narrow(node)
        self.nodes.append(node)

    def _pair(self, node: NodeProto) -> None:
        """Give both sides the rounded scale: float32 in front of the images' Q, narrow everywhere else."""
        quantizes = node.op_type == "QuantizeLinear"
        wide = quantizes and node.input[0] not in self.narrow
        if quantizes and node.input[0] in self.constants:
            raise GraphError(f"{label(node)!r} quantizes a constant to something else than int8; quantize it with rctk")
        node.input[1] = self._scale(node, wide=wide)
        if not quantizes:
            self.narrow.add(node.output[0])

    def _scale(self, node: NodeProto, *, wide: bool) -> str:
        scale = self.constants.get(node.input[1])
        if scale is None:
            raise GraphError(f"the scale of {label(node)!r} is no float32 constant; quantize the model with rctk")
        rounded = self._round(scale, label(node))
        codes = self.graph.constants.get(node.input[0])
        error = np.abs(rounded - scale) / np.maximum(scale, np.finfo(np.float32).tiny)
        bad = np.flatnonzero((error > SCALE_ERROR) & _used(codes, attributes(node).get("axis", 1), scale.size))
        if bad.size:
            worst = float(np.reshape(scale, -1)[bad[0]])
            raise QuantizationError(
                f"the scale {worst:g} of {label(node)!r} does not fit {self.kind}; use --precision-rest "
                f"{'bf16' if self.kind == 'fp16' else 'fp32'}"
            )
        smallest = float(ml_dtypes.finfo(self.dtype).smallest_subnormal)
        return self._constant(node.input[1], np.maximum(rounded, smallest), wide=wide)

    def _stays_wide(self, node: NodeProto) -> bool:
        """Return whether a node lies between the images and the first Q or layer, or computes no floats."""
        floats = [self.types.get(name) == TensorProto.FLOAT for name in node.output if name]
        if not any(floats):
            return not any(name in self.narrow for name in node.input)
        moving = [name for name in node.input if name and name not in self.graph.constants]
        return node.op_type not in LAYERS and bool(moving) and not any(name in self.narrow for name in moving)

    def _narrow(self, node: NodeProto) -> None:
        kept = KEEP_FLOAT.get(node.op_type, ())
        for slot, name in enumerate(node.input):
            if slot in kept or not name:
                continue
            if name not in self.constants and name not in self.narrow and self.types.get(name) == TensorProto.FLOAT:
                node.input[slot] = self._cast(name)
        self._constants(node, narrow=True, kept=kept)
        for attribute in node.attribute:
            if attribute.name in {"to", "dtype"} and attribute.i == TensorProto.FLOAT:
                attribute.i = self.type
            if attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(self._tensor(numpy_helper.to_array(attribute.t), attribute.t.name))
        self.narrow |= {name for name in node.output if self.types.get(name, TensorProto.FLOAT) == TensorProto.FLOAT}

    def _constants(self, node: NodeProto, *, narrow: bool, kept: tuple[int, ...] = ()) -> None:
        for slot, name in enumerate(node.input):
            if name in self.constants:
                wide = not narrow or slot in kept
                value = self.constants[name] if wide else self._round(self.constants[name], label(node))
                node.input[slot] = self._constant(name, value, wide=wide)

    def _round(self, value: npt.NDArray[Any], where: str) -> npt.NDArray[np.float32]:
        with np.errstate(over="ignore"):
            rounded = value.astype(self.dtype).astype(np.float32)
        if np.isfinite(value).all() and not np.isfinite(rounded).all():
            raise QuantizationError(
                f"a constant of {where!r} reaches {np.abs(value).max():g}, more than fp16 holds; use "
                "--precision-rest bf16"
            )
        return np.asarray(rounded)

    def _constant(self, name: str, value: npt.NDArray[np.float32], *, wide: bool) -> str:
        """Store a constant in one of the two types, and return its name: the own one for float32 as it was."""
        same = wide and np.array_equal(value, self.constants[name])
        title = name if same else f"{name}.{'rounded' if wide else self.kind}"
        if title not in self.made:
            self.made[title] = numpy_helper.from_array(value, title) if wide else self._tensor(value, title)
        return title

    def _tensor(self, value: npt.NDArray[Any], name: str) -> TensorProto:
        return numpy_helper.from_array(value.astype(self.dtype), name)

    def _cast(self, name: str) -> str:
        title = f"{name}.{self.kind}"
        if title not in self.narrow:
            self.nodes.append(helper.make_node("Cast", [name], [title], name=f"{title}.cast", to=self.type))
            self.narrow.add(title)
        return title

    def _widen_output(self, name: str) -> None:
        inner = f"{name}.{self.kind}"
        for node in self.nodes:
            for names in (node.input, node.output):
                for slot, held in enumerate(names):
                    if held == name:
                        names[slot] = inner
        self.nodes.append(helper.make_node("Cast", [inner], [name], name=f"{inner}.widen", to=TensorProto.FLOAT))

    def _store(self) -> None:
        """Keep the constants that somebody still reads."""
        read = {name for node in self.nodes for name in node.input}
        kept = [t for t in self.model.graph.initializer if t.name in read and t.name not in self.made]
        del self.model.graph.initializer[:]
        self.model.graph.initializer.extend([*kept, *(t for name, t in self.made.items() if name in read)])


def _used(codes: npt.NDArray[Any] | None, axis: int, count: int) -> npt.NDArray[np.bool_]:
    """Return per scale whether any code behind it is not 0; scales of activations are always used."""
    if codes is None or count == 1:
        return np.ones(count, dtype=bool)
    others = tuple(i for i in range(codes.ndim) if i != axis % codes.ndim)
    return np.asarray((codes != 0).any(axis=others))
