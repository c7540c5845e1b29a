"""An int8 ONNX file as a torch module that ``torch.export`` takes: plain operators, and quantizers that you choose.

:class:`~rctk_export.onnx_module.OnnxModule` interprets a graph on integer codes, which no compiler follows. Here the
same graph runs on real values between explicit pairs of quantize and dequantize: the form from which ExecuTorch and
others take int8 kernels. Both mean the same; where float32 rounds a sum the other way, one code may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import torch
from onnx import TensorProto
from torch import Tensor, nn

from rctk_export.onnx_files import load_onnx
from rctk_export.onnx_module.codes import Codes
from rctk_export.onnx_module.graph import Graph, read_graph
from rctk_export.onnx_module.node import Constant, Node, Op, Settings
from rctk_export.onnx_module.operators import build
from rctk_export.onnx_module.quantized import RANGES, quantizer_axis
from rctk_export.quantize_operators import Grid, Quantizers, made_kind, stored_kind

SHIFT = 128
"""What lies between the codes of uint8 and those of int8 for the same value."""
BYTE = {TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT4, TensorProto.INT4}
HOST = {"Shape", "Size"}
WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
ACTIVATIONS = {"Relu", "Clip"}
MOVED = "/int8"
"""What stands behind the name of codes and zero points that were moved to int8."""


class Step(NamedTuple):
    """One call: a torch function, the names of its arguments (``""`` for None) and of its results."""

    function: Op
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class ExportableModule(nn.Module):
    """A quantized graph as straight-line torch code for ``torch.export``.

    Activations of uint8 move to int8 with their zero point. Each reader gets a dequantizer of its own, as compilers
    that look for patterns want it. Biases stored as int32 become the floats that they stand for, and weights stored as
    float with a QuantizeLinear become int8 codes.

    Args:
        model: The graph, or the path of its file.
        images: An example ``(N, C, H, W)`` in the units that the graph expects. Sizes that the graph computes from its
            input are written into the module, also ``N`` where a graph asks for it.
        quantizers: Which operators to emit.
        whole: Whether a layer computes on integers only if its result is quantized as well; the weights of any other
            layer then become floats. So it is with XNNPACK.

    Limits: codes of 8 bits or fewer, scales that are constants, nothing computed between QuantizeLinear and
    DequantizeLinear.

    Example:
        >>> from onnx import TensorProto, helper
        >>> from rctk_export.quantize_operators import Decomposed
        >>> graph = helper.make_graph(
        ...     [helper.make_node("Relu", ["x"], ["y"])],
        ...     "g",
        ...     [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        ...     [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        ... )
        >>> x = torch.tensor([[-1.0, 2.0]])
        >>> ExportableModule(helper.make_model(graph), x, Decomposed())(x)
        tensor([[0., 2.]])
    """

    def __init__(
        self, model: onnx.ModelProto | Path, images: Tensor, quantizers: Quantizers, *, whole: bool = False
    ) -> None:
        super().__init__()
        graph = read_graph(load_onnx(model) if isinstance(model, Path) else model, Settings())
        constants = graph.constants  # every node looks its constants up there, so what is folded is added there
        nodes = _own_dequantizers(_without_sizes(graph, images), graph.output)
        nodes = _folded(nodes, constants, _unquantized(nodes) if whole else frozenset())
        self._input, self._output = graph.input, graph.output
        self._steps = [_step(node, constants, quantizers) for node in nodes]
        read = dict.fromkeys(name for step in self._steps for name in step.inputs if name in constants)
        self._keys: dict[str, str] = {}
        self._host: dict[str, Tensor] = {}
        for name in read:
            tensor = constants[name].tensor
            if tensor.is_floating_point() or tensor.dtype == torch.int8 or name.endswith(MOVED):
                self._keys[name] = f"c{len(self._keys)}_{_identifier(name)}"
                self.register_buffer(self._keys[name], tensor.clone())
            else:
                self._host[name] = tensor

    @property
    def buffer_names(self) -> dict[str, str]:
        """Name of a constant in the graph to name of its buffer."""
        return dict(self._keys)

    def forward(self, images: Tensor) -> Tensor:
        """Classify.

        Args:
            images: ``(N, C, H, W)``, floats, or uint8 pixels where the graph reads those.

        Returns:
            Logits ``(N, K)``.
        """
        values: dict[str, Any] = {"": None, self._input: images, **self._host}
        values.update((name, getattr(self, key)) for name, key in self._keys.items())
        for step in self._steps:
            results = step.function(*[values[name] for name in step.inputs])
            values.update(zip(step.outputs, _several(results), strict=False))
        logits: Tensor = values[self._output]
        return logits.flatten(1)


def _several(results: Any) -> tuple[Any, ...]:
    return results if isinstance(results, tuple) else (results,)


def _identifier(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def _without_sizes(graph: Graph, images: Tensor) -> list[Node]:
    """Compute what depends on the size of the images only, make it constants, and return the other nodes."""
    if not any(node.op in HOST for node in graph.nodes):
        return list(graph.nodes)
    values: dict[str, Any] = {"": None, graph.input: images}
    values.update((name, constant.tensor) for name, constant in graph.constants.items())
    sizes: set[str] = set()
    kept = []
    for node in graph.nodes:
        values.update(zip(node.outputs, _several(build(node)(*[values[name] for name in node.inputs])), strict=False))
        known = all(not name or name in graph.constants for name in node.inputs)
        if node.op in HOST or (known and not sizes.isdisjoint(node.inputs)):
            sizes.update(node.outputs)
            graph.constants.update((name, Constant(values[name], TensorProto.INT64)) for name in node.outputs)
        else:
            kept.append(node)
    return kept


def _own_dequantizers(nodes: Sequence[Node], output: str) -> list[Node]:
    """Put a DequantizeLinear of its own in front of each reader."""
    made = {node.outputs[0]: node for node in nodes if node.op == "DequantizeLinear"}
    ordered: list[Node] = []
    for node in nodes:
        if node.op == "DequantizeLinear":
            continue
        inputs = list(node.inputs)
        for i, name in enumerate(inputs):
            if name in made:
                inputs[i] = f"{name}/{len(ordered)}"
                ordered.append(replace(made[name], outputs=(inputs[i],)))
        ordered.append(replace(node, inputs=tuple(inputs)))
    return [*ordered, made[output]] if output in made else ordered


def _unquantized(nodes: Sequence[Node]) -> frozenset[str]:
    """Return the names that weighted layers read whose result no QuantizeLinear takes, directly or behind a ReLU."""
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)

    def quantized(name: str) -> bool:
        ops = {node.op for node in readers.get(name, [])}
        if len(ops) == 1 and ops <= ACTIVATIONS and len(readers[name]) == 1:
            return quantized(readers[name][0].outputs[0])
        return ops == {"QuantizeLinear"}

    floats = [node for node in nodes if node.op in WEIGHTED and not quantized(node.outputs[0])]
    return frozenset(name for node in floats for name in node.inputs)


def _folded(nodes: Sequence[Node], constants: dict[str, Constant], as_floats: frozenset[str]) -> list[Node]:
    """Make constants of what depends on constants only, and return the other nodes.

    Dequantized int8 weights stay codes, except those called ``as_floats``.
    """
    kept: list[Node] = []
    for node in nodes:
        known = all(not name or name in constants for name in node.inputs)
        coded = node.op == "DequantizeLinear" and node.outputs[0] not in as_floats
        if not known or (coded and constants[node.inputs[0]].kind != TensorProto.INT32):
            kept.append(node)
            continue
        results = _several(build(node)(*[constants[name].tensor if name else None for name in node.inputs]))
        kind = made_kind(node) if node.op == "QuantizeLinear" else TensorProto.FLOAT
        for name, result in zip(node.outputs, results, strict=False):
            constants[name] = Constant(result.real() if isinstance(result, Codes) else result, kind)
    made = {node.outputs[0]: node for node in kept if node.op == "QuantizeLinear"}
    for node in kept:
        stray = [name for name in node.inputs if name in made] if node.op != "DequantizeLinear" else []
        if stray:
            raise node.refuse(f"it computes on the codes {stray[0]!r}")
    return kept


def _step(node: Node, constants: dict[str, Constant], quantizers: Quantizers) -> Step:
    if node.op == "QuantizeLinear":
        return _quantizer(node, constants, quantizers.quantize, made_kind(node))
    if node.op == "DequantizeLinear":
        return _quantizer(node, constants, quantizers.dequantize, stored_kind(node, constants))
    return Step(build(node), node.inputs, node.outputs)


def _quantizer(
    node: Node, constants: dict[str, Constant], function: Callable[[Tensor, Grid], Tensor], kind: int
) -> Step:
    axis, scale, zero = quantizer_axis(node), node.constant(1), node.constant(2)
    if scale is None or (node.has(2) and zero is None):
        raise node.refuse("its scale and zero point must be constants")
    if kind not in BYTE:
        raise node.refuse(f"codes of type {TensorProto.DataType.Name(kind)} do not fit in a byte with a sign")
    shift = SHIFT if kind == TensorProto.UINT8 else 0
    low, high = RANGES[kind]
    zeros = torch.zeros(scale.tensor.numel(), dtype=torch.int64) if zero is None else zero.tensor.reshape(-1).long()
    zeros = zeros - shift
    source = node.inputs[0]
    if source in constants:
        moved = f"{source}{MOVED}"
        constants[moved] = Constant((constants[source].tensor.to(torch.int16) - shift).to(torch.int8), TensorProto.INT8)
        source = moved
    low, high = low - shift, high - shift
    if axis is None:
        grid = Grid(float(scale.tensor), int(zeros[0]), None, low, high)
        return Step(lambda x: function(x, grid), (source,), node.outputs)
    constants[f"{node.outputs[0]}/zero{MOVED}"] = Constant(zeros.expand(scale.tensor.numel()), TensorProto.INT64)
    return Step(
        lambda x, scale, zero: function(x, Grid(scale, zero, axis, low, high)),
        (source, node.inputs[1], f"{node.outputs[0]}/zero{MOVED}"),
        node.outputs,
    )
