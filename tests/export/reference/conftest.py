"""Small graphs on disk, and what ONNX Runtime makes of them node by node."""

import numpy as np
import pytest

from rctk_export.engine import Source
from rctk_export.input_spec import InputSpec


@pytest.fixture
def save(tmp_path):
    """Write a graph of one input ``images`` and one output ``logits``."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    def write(nodes, constants, shape=(1, 2, 2), opset=20):
        initializers = [
            value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value), name)
            for name, value in constants.items()
        ]
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", *shape])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
            initializers,
        )
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
        channels, height, width = shape
        return Source(path=path, input=InputSpec(channels=channels, height=height, width=width))

    return write


@pytest.fixture
def runtime():
    """Run ONNX Runtime unoptimised and return any tensors by name."""
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")

    def run(source, names, images):
        model = onnx.load(source.path)
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return dict(zip(names, session.run(list(names), {"images": images}), strict=True))

    return run


@pytest.fixture
def images():
    """Random images in [0, 1]."""
    return lambda count, *shape: np.random.default_rng(0).random((count, *shape), dtype=np.float32)


@pytest.fixture
def agrees(save, runtime, images):
    """Compare tensors of the reference with those of ONNX Runtime on three images of 4 x 6 x 5."""
    from rctk_export.engines.reference import Reference

    def check(nodes, constants, names=("logits",), opset=20):
        source, x = save(nodes, constants, shape=(4, 6, 5), opset=opset), images(3, 4, 6, 5)
        with Reference().open(source) as engine:
            ours = engine.run(x, names)
        for name, value in runtime(source, names, x).items():
            assert ours[name].shape == value.shape, name
            np.testing.assert_allclose(ours[name], value, rtol=2e-5, atol=2e-6, err_msg=name)

    return check
