from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rctk_export.graph import Graph, Reader
from rctk_kernels.errors import GraphError


def model(nodes, initializers=()):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.asarray(value, dtype=np.float32), name) for name, value in initializers],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def test_finish_sorts_nodes_and_drops_what_nothing_reads():
    nodes = [
        helper.make_node("Add", ["b", "one"], ["y"], name="last"),
        helper.make_node("Relu", ["x"], ["b"], name="first"),
        helper.make_node("Neg", ["x"], ["nobody"], name="dead"),
    ]
    graph = Graph(model(nodes, [("one", [1.0]), ("unused", [2.0])]))
    done = graph.finish()
    assert [node.name for node in done.graph.node] == ["first", "last"]
    assert [t.name for t in done.graph.initializer] == ["one"]
    onnx.checker.check_model(done, full_check=True)


def test_constant_nodes_become_constants():
    made = helper.make_node("Constant", [], ["c"], value_floats=[3.0])
    graph = Graph(model([made, helper.make_node("Add", ["x", "c"], ["y"])]))
    assert graph.constants["c"].tolist() == [3.0]
    assert [t.name for t in graph.finish().graph.initializer] == ["c"]


def test_rewriting_a_shared_constant_leaves_the_other_reader_alone():
    nodes = [helper.make_node("Add", ["x", "c"], ["a"]), helper.make_node("Mul", ["a", "c"], ["y"])]
    graph = Graph(model(nodes, [("c", [1.0])]))
    graph.rewrite_constant(graph.nodes[0], 1, np.asarray([5.0], dtype=np.float32))
    assert graph.constant(graph.nodes[0], 1) == 5
    assert graph.constant(graph.nodes[1], 1) == 1


def test_readers_name_node_and_slot():
    graph = Graph(model([helper.make_node("Add", ["x", "x"], ["y"], name="twice")]))
    assert [(r.node.name, r.slot) for r in graph.readers("x")] == [("twice", 0), ("twice", 1)]
    assert isinstance(graph.readers("x")[0], Reader)


def test_a_tensor_that_nothing_makes_is_named():
    graph = Graph(model([helper.make_node("Add", ["x", "ghost"], ["y"], name="broken")]))
    with pytest.raises(GraphError, match=r"broken.*ghost"):
        graph.finish()
