"""Small edits at the ends of a foreign graph: rename a tensor, put operators behind the input or the output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from onnx import ModelProto, helper

from rctk_export.onnx_files import all_graphs


class Step(NamedTuple):
    """One operator behind the input; the tensor before it is its first input."""

    op: str
    constants: list[str]
    name: str


def rename_tensor(model: ModelProto, old: str, new: str) -> None:
    """Rename a tensor wherever it is made or read, in branches too; another tensor of that name gives way."""
    if old == new:
        return
    graphs = list(all_graphs(model.graph))
    taken = {name for graph in graphs for node in graph.node for name in (*node.input, *node.output)}
    taken |= {named.name for graph in graphs for named in (*graph.input, *graph.output, *graph.initializer)}
    if new in taken:
        aside = next(f"{new}.{i}" for i in range(1, len(taken) + 2) if f"{new}.{i}" not in taken)
        merge_tensors(model, new, aside)
    merge_tensors(model, old, new)


def merge_tensors(model: ModelProto, old: str, new: str) -> None:
    """Give ``old`` the name ``new`` everywhere, also where that name is read already; nothing may make ``new``."""
    for graph in all_graphs(model.graph):
        for named in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
            named.name = new if named.name == old else named.name
        for node in graph.node:
            for names in (node.input, node.output):
                names[:] = [new if name == old else name for name in names]


def insert_behind_input(model: ModelProto, steps: Sequence[Step]) -> None:
    """Put operators between the input and everything that reads it."""
    entry = model.graph.input[0].name
    rename_tensor(model, entry, inner := f"{entry}.{len(model.graph.node)}.inner")
    model.graph.input[0].name = entry
    names = [entry, *(step.name for step in steps[:-1]), inner]
    made = [
        helper.make_node(op, [source, *constants], [target], name=name)
        for (op, constants, name), source, target in zip(steps, names[:-1], names[1:], strict=True)
    ]
    nodes = [*made, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def append_behind_output(model: ModelProto, op: str, **settings: Any) -> None:
    """Put an operator between what was the output and the world."""
    name = model.graph.output[0].name
    model.graph.output[0].name = f"{name}.{op.lower()}"
    model.graph.node.append(
        helper.make_node(op, [name], [f"{name}.{op.lower()}"], name=f"rctk.{op.lower()}", **settings)
    )
