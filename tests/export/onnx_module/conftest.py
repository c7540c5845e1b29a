"""One-node graphs, and what ONNX Runtime computes on them without its optimiser."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def graph_of(nodes, constants, *, shape, opset=20, batch="n", outputs=("y",), inputs=("x",), kind=TensorProto.FLOAT):
    """A model with input ``x`` of ``(batch, *shape)`` and output ``y`` of unknown shape."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, [batch, *shape]) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def one_node(op, *constants, shape, opset=20, batch="n", domain="", **attributes):
    """A model whose only node reads ``x`` and then ``constants`` (None for one left out)."""
    names = ["" if value is None else f"c{i}" for i, value in enumerate(constants)]
    node = helper.make_node(op, ["x", *names], ["y"], name="node", domain=domain, **attributes)
    values = {name: value for name, value in zip(names, constants, strict=True) if name}
    return graph_of([node], values, shape=shape, opset=opset, batch=batch)


def unoptimised(model, images):
    """Logits of ONNX Runtime with its optimiser switched off."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def images(shape, count=3, seed=0):
    """Normal values of both signs."""
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


@pytest.fixture
def tools():
    return SimpleNamespace(graph_of=graph_of, one_node=one_node, unoptimised=unoptimised, images=images)


@pytest.fixture
def agrees():
    """Check both modes against ONNX Runtime: the same logits to float32 rounding."""
    from rctk_export.onnx_module import OnnxModule

    def check(model, x, *, atol=2e-6):
        expected = unoptimised(model, x)
        expected = expected.reshape(len(x), -1)
        assert np.ptp(expected) > 0, "a constant output shows nothing"
        for mode in ("fast", "exact"):
            logits = OnnxModule(model, mode=mode)(torch.from_numpy(x)).detach().numpy()
            np.testing.assert_allclose(logits, expected, rtol=2e-5, atol=atol, err_msg=mode)

    return check
