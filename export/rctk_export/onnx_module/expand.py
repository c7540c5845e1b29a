"""Integer operators of other tools, written out as DequantizeLinear, float operator and QuantizeLinear.

QLinearConv and its kin (ONNX and com.microsoft) name scales and zero points as inputs. Written out, they mean
the same and need no operator of their own. ConvInteger and MatMulInteger have a scale of 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from onnx import TensorProto

from rctk_export.onnx_module.node import Constant, Node


@dataclass
class Expansion:
    """The nodes that stand for one integer node.

    Attributes:
        node: What is written out.
        constants: Of the file; products of scales join them.
    """

    node: Node
    constants: dict[str, Constant]

    def __post_init__(self) -> None:
        self.nodes: list[Node] = []

    def _add(self, op: str, inputs: tuple[str, ...], output: str, **attributes: object) -> str:
        name = self.node.name or self.node.outputs[0]
        made = replace(self.node, op=op, domain="", name=f"{name}/{op}", inputs=inputs, outputs=(output,))
        self.nodes.append(replace(made, attributes=dict(attributes)))
        return output

    def _scratch(self, role: str) -> str:
        return f"{self.node.name or self.node.outputs[0]}/{role}/{len(self.nodes)}"

    def given(self, index: int) -> str:
        """Return the name of input ``index``, ``""`` where it is left out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else ""

    def dequantize(self, index: int, axis: int = 0, *, scale: str | None = None, zero: str | None = None) -> str:
        """Dequantize input ``index``, whose scale and zero point are the next two unless named."""
        scale = self.given(index + 1) if scale is None else scale
        zero = self.given(index + 2) if zero is None else zero
        inputs = (self.given(index), scale, *([zero] if zero else []))
        return self._add("DequantizeLinear", inputs, self._scratch("real"), axis=axis)

    def bias(self, index: int, scales: tuple[int, int], alpha: float = 1.0) -> str:
        """Dequantize int32 codes on the grid of the sums of products, ``alpha`` times the product of two scales."""
        if not self.given(index):
            return ""
        first, second = (self.node.constant(i) for i in scales)
        if first is None or second is None:
            raise self.node.refuse("its scales must be constants")
        grid = (first.tensor.double() * second.tensor.double() * alpha).to(first.tensor.dtype).reshape(-1)
        name = self._scratch("scale")
        self.constants[name] = Constant(grid, TensorProto.FLOAT)
        return self.dequantize(index, scale=name, zero="")

    def compute(self, op: str, inputs: tuple[str, ...], *, last: bool = False, **attributes: object) -> str:
        """Run the float operator; ``last`` if nothing quantizes its result."""
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        return self._add(op, inputs, self.node.outputs[0] if last else self._scratch("sum"), **attributes)

    def quantize(self, value: str, index: int) -> list[Node]:
        """Quantize to the scale and zero point at ``index``; gives all nodes."""
        inputs = (value, self.given(index), *([self.given(index + 1)] if self.given(index + 1) else []))
        self._add("QuantizeLinear", inputs, self.node.outputs[0])
        return self.nodes

    def one(self) -> str:
        """Return the name of a scale of 1."""
        name = self._scratch("one")
        self.constants[name] = Constant(torch.tensor(1.0, dtype=self.node.settings.dtype), TensorProto.FLOAT)
        return name


def _conv(made: Expansion) -> list[Node]:
    operands = (made.dequantize(0), made.dequantize(3), made.bias(8, (1, 4)))
    return made.quantize(made.compute("Conv", operands, **made.node.attributes), 6)


def _mat_mul(made: Expansion) -> list[Node]:
    operands = (made.dequantize(0), made.dequantize(3, axis=-1))
    return made.quantize(made.compute("MatMul", operands), 6)


def _gemm(made: Expansion) -> list[Node]:
    attributes = made.node.attributes
    axis, alpha = (0 if attributes.get("transB", 0) else 1), float(attributes.get("alpha", 1.0))
    operands = (made.dequantize(0), made.dequantize(3, axis=axis), made.bias(6, (1, 4), alpha))
    if not made.given(7):
        made.compute("Gemm", operands, last=True, **attributes)
        return made.nodes
    return made.quantize(made.compute("Gemm", operands, **attributes), 7)


def _pair(op: str) -> Callable[[Expansion], list[Node]]:
    return lambda made: made.quantize(made.compute(op, (made.dequantize(0), made.dequantize(3))), 6)


def _single(op: str) -> Callable[[Expansion], list[Node]]:
    def expand(made: Expansion) -> list[Node]:
        if made.node.get("channels_last", 0):
            raise made.node.refuse("channels_last is not supported")
        return made.quantize(made.compute(op, (made.dequantize(0),), **made.node.attributes), 3)

    return expand


def _soft_max(made: Expansion) -> list[Node]:
    made.node = replace(made.node, opset=int(made.node.get("opset", made.node.opset)))
    return made.quantize(made.compute("Softmax", (made.dequantize(0),), axis=made.node.get("axis", -1)), 3)


def _concat(made: Expansion) -> list[Node]:
    parts = tuple(made.dequantize(index) for index in range(2, len(made.node.inputs), 3))
    return made.quantize(made.compute("Concat", parts, axis=made.node.get("axis", 1)), 0)


def _integer(op: str) -> Callable[[Expansion], list[Node]]:
    def expand(made: Expansion) -> list[Node]:
        operands = tuple(
            made.dequantize(i, 0 if i == 0 or op == "Conv" else -1, scale=made.one(), zero=made.given(2 + i))
            for i in (0, 1)
        )
        made.compute(op, operands, last=True, **made.node.attributes)
        return made.nodes

    return expand


EXPANSIONS: dict[tuple[str, str], Callable[[Expansion], list[Node]]] = {
    ("", "QLinearConv"): _conv,
    ("", "QLinearMatMul"): _mat_mul,
    ("", "ConvInteger"): _integer("Conv"),
    ("", "MatMulInteger"): _integer("MatMul"),
    ("com.microsoft", "QLinearConv"): _conv,
    ("com.microsoft", "QGemm"): _gemm,
    ("com.microsoft", "QLinearAdd"): _pair("Add"),
    ("com.microsoft", "QLinearMul"): _pair("Mul"),
    ("com.microsoft", "QLinearConcat"): _concat,
    ("com.microsoft", "QLinearSoftmax"): _soft_max,
    ("com.microsoft", "QLinearSigmoid"): _single("Sigmoid"),
    ("com.microsoft", "QLinearLeakyRelu"): _single("LeakyRelu"),
    ("com.microsoft", "QLinearAveragePool"): _single("AveragePool"),
    ("com.microsoft", "QLinearGlobalAveragePool"): _single("GlobalAveragePool"),
}


def expand(node: Node, constants: dict[str, Constant]) -> list[Node]:
    """Return the nodes that stand for ``node``: itself, unless it is an integer operator."""
    rule = EXPANSIONS.get((node.domain, node.op))
    return [node] if rule is None else rule(Expansion(node, constants))
