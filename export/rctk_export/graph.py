"""An ONNX graph with its names resolved: who makes a tensor, who reads it, which tensors are constants."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from rctk_kernels.errors import GraphError


class Reader(NamedTuple):
    """One use of a tensor: the node that reads it and at which input."""

    node: onnx.NodeProto
    slot: int


class Graph:
    """A view of ``model`` that stays correct while nodes are added and removed through it.

    Args:
        model: Changed in place; call :meth:`finish` at the end.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.constants: dict[str, npt.NDArray[Any]] = {
            t.name: numpy_helper.to_array(t) for t in model.graph.initializer
        }
        for node in [n for n in self.nodes if n.op_type == "Constant"]:
            self.constants[node.output[0]] = constant_value(node)
            self.nodes.remove(node)
        self.inputs = [i.name for i in model.graph.input if i.name not in self.constants]
        self.outputs = [o.name for o in model.graph.output]

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """Return the node that makes ``tensor``; None for inputs and constants."""
        return next((node for node in self.nodes if tensor in node.output), None)

    def readers(self, tensor: str) -> list[Reader]:
        """Return every use of ``tensor`` by a node, in graph order."""
        return [Reader(node, i) for node in self.nodes for i, name in enumerate(node.input) if name == tensor]

    def index(self) -> tuple[dict[str, onnx.NodeProto], dict[str, list[Reader]]]:
        """Return producer and readers of all tensors at once, for code that only reads the graph."""
        producers = {name: node for node in self.nodes for name in node.output if name}
        readers: dict[str, list[Reader]] = defaultdict(list)
        for node in self.nodes:
            for i, name in enumerate(node.input):
                if name:
                    readers[name].append(Reader(node, i))
        return producers, readers

    def constant(self, node: onnx.NodeProto, index: int) -> npt.NDArray[Any] | None:
        """Return the value of input ``index`` if it is a constant, None if it is absent or computed."""
        if index >= len(node.input) or not node.input[index]:
            return None
        return self.constants.get(node.input[index])

    def fresh(self, name: str) -> str:
        """Return ``name``, or the first of ``name_1``, ``name_2``, ... that no tensor or node has."""
        taken = set(self.constants) | set(self.inputs) | {n.name for n in self.nodes}
        taken |= {o for n in self.nodes for o in n.output}
        if name not in taken:
            return name
        return next(f"{name}_{i}" for i in range(1, len(taken) + 2) if f"{name}_{i}" not in taken)

    def add_constant(self, name: str, value: npt.NDArray[Any]) -> str:
        """Store a constant under a fresh name and return the name."""
        fresh = self.fresh(name)
        self.constants[fresh] = value
        return fresh

    def rewrite_constant(self, node: onnx.NodeProto, index: int, value: npt.NDArray[Any]) -> None:
        """Give input ``index`` of ``node`` a new constant; other readers of the old one keep it."""
        old = node.input[index]
        shared = len(self.readers(old)) > 1 or old in self.outputs
        if shared:
            node.input[index] = self.add_constant(old, value)
        else:
            self.constants[old] = value

    def replace_readers(self, old: str, new: str, readers: Iterable[Reader] | None = None) -> None:
        """Let ``readers`` of ``old`` (all by default) read ``new`` instead; a graph output keeps its name."""
        for node, index in self.readers(old) if readers is None else readers:
            node.input[index] = new

    def remove(self, node: onnx.NodeProto) -> None:
        """Remove one node; its readers must have been moved before."""
        self.nodes = [other for other in self.nodes if other is not node]

    def insert_before(self, node: onnx.NodeProto, new: Sequence[onnx.NodeProto]) -> None:
        """Put ``new`` nodes in front of ``node``."""
        at = next(i for i, other in enumerate(self.nodes) if other is node)
        self.nodes[at:at] = list(new)

    def finish(self) -> onnx.ModelProto:
        """Write nodes and the constants that are still read back into the model, and return it."""
        used = {name for node in self.nodes for name in node.input} | set(self.outputs)
        graph = self.model.graph
        kept = [i for i in graph.input if i.name in self.inputs]
        del graph.node[:], graph.initializer[:], graph.input[:], graph.value_info[:]
        graph.input.extend(kept)
        graph.node.extend(self._sorted())
        graph.initializer.extend(
            numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
            for name, value in self.constants.items()
            if name in used
        )
        return self.model

    def _sorted(self) -> list[onnx.NodeProto]:
        """Return the nodes in an order in which every tensor is made before it is read; dead nodes are dropped."""
        alive = self._alive()
        ready = set(self.inputs) | set(self.constants) | {""}
        waiting, done = [node for node in self.nodes if id(node) in alive], []
        while waiting:
            now = [node for node in waiting if all(name in ready for name in node.input)]
            if not now:
                raise GraphError(
                    f"node {waiting[0].name!r} reads a tensor that nothing makes: {list(waiting[0].input)}"
                )
            for node in waiting:
                if all(name in ready for name in node.input):
                    done.append(node)
                    ready.update(node.output)
            finished = {id(node) for node in done}
            waiting = [node for node in waiting if id(node) not in finished]
        return done

    def _alive(self) -> set[int]:
        producers, _ = self.index()
        alive: set[int] = set()
        wanted = list(self.outputs)
        while wanted:
            node = producers.get(wanted.pop())
            if node is not None and id(node) not in alive:
                alive.add(id(node))
                wanted.extend(node.input)
        return alive


def constant_value(node: onnx.NodeProto) -> npt.NDArray[Any]:
    """Return the array of a ``Constant`` node."""
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if attribute.name == "value":
            return numpy_helper.to_array(value)
        if attribute.name in {"value_float", "value_floats"}:
            return np.asarray(value, dtype=np.float32)
        if attribute.name in {"value_int", "value_ints"}:
            return np.asarray(value, dtype=np.int64)
    raise GraphError(f"Constant node {node.name!r} holds no numbers")


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes of ``node`` as Python values."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def set_attribute(node: onnx.NodeProto, name: str, value: object) -> None:
    """Set one attribute, replacing an earlier value."""
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])
