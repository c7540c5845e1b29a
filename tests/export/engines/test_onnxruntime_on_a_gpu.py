"""What only a machine with a GPU can show about ONNX Runtime's NVIDIA providers; nothing here has run yet."""

from __future__ import annotations

import numpy as np
import pytest

from rctk_export.engine import Source
from rctk_export.engines import ENGINES
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import EngineUnavailableError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SPEC = InputSpec(channels=2, height=4, width=4)
ENGINES_ON_GPUS = (
    *("onnxruntime-cuda", "onnxruntime-cuda:batch=8,cuda_graph=true"),
    *("onnxruntime-tensorrt:max_batch=8", "onnxruntime-tensorrt:min_batch=8,opt_batch=8,max_batch=8,cuda_graph=true"),
    *("onnxruntime-rtx:max_batch=8", "onnxruntime-rtx:min_batch=8,opt_batch=8,max_batch=8,cuda_graph=true"),
)
X = np.random.default_rng(0).random((20, *SPEC.shape), dtype=np.float32)
pytestmark = pytest.mark.gpu


def save(path, *, quantized):
    """Write Conv -> Relu -> Flatten -> Gemm in float, or with Q/DQ at all its inputs as TensorRT wants them."""
    rng = np.random.default_rng(1)
    stored = {
        "w": rng.normal(size=(4, 2, 3, 3)).astype(np.float32),
        "b": rng.normal(size=4).astype(np.float32),
        "m": rng.normal(size=(5, 64)).astype(np.float32) / 8,
        "c": rng.normal(size=5).astype(np.float32),
    }
    nodes, names = [], {name: name for name in ("images", "w", "hidden", "m")}
    if quantized:
        stored |= {f"{name}.scale": np.float32(1 / 64) for name in names} | {"zero": np.int8(0)}
        names = {name: f"{name}.dq" for name in names}
    pair = {name: _pair(name) if quantized else [] for name in names}
    make = onnx.helper.make_node
    nodes = [
        *(*pair["images"], *pair["w"]),
        make("Conv", [names["images"], names["w"], "b"], ["sum"], name="conv", pads=[1, 1, 1, 1]),
        make("Relu", ["sum"], ["positive"], name="relu"),
        make("Flatten", ["positive"], ["hidden"], name="flatten"),
        *(*pair["hidden"], *pair["m"]),
        make("Gemm", [names["hidden"], names["m"], "c"], ["logits"], name="fc", transB=1),
    ]
    value = onnx.helper.make_tensor_value_info
    ends = [value("images", 1, ["N", *SPEC.shape])], [value("logits", 1, ["N", 5])]
    graph = onnx.helper.make_graph(nodes, "net", *ends, [onnx.numpy_helper.from_array(v, n) for n, v in stored.items()])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    role = "int8" if quantized else "float"
    return Source(path=path, input=SPEC, role=role, target="tensorrt" if quantized else "")


def _pair(name):
    q, dq = onnx.helper.make_node, onnx.helper.make_node
    return [
        q("QuantizeLinear", [name, f"{name}.scale", "zero"], [f"{name}.q"], name=f"{name}.quantize"),
        dq("DequantizeLinear", [f"{name}.q", f"{name}.scale", "zero"], [f"{name}.dq"], name=f"{name}.dequantize"),
    ]


@pytest.mark.parametrize("quantized", [False, True], ids=["float", "int8"])
@pytest.mark.parametrize("text", ENGINES_ON_GPUS)
def test_the_engine_runs_the_whole_file_and_agrees_with_the_cpu(tmp_path, text, quantized):
    source = save(tmp_path / "m.onnx", quantized=quantized)
    with ENGINES.build("onnxruntime:optimize=false").open(source) as engine:
        expected = engine.predict(X)
    try:
        opened = ENGINES.build(text).open(source)
    except EngineUnavailableError as error:
        pytest.skip(str(error))
    with opened as engine:
        found = engine.predict(X)
        assert np.array_equal(engine.predict(X[:3]), engine.predict(X[:3]))
        assert len(engine.placement()) <= 1
    # TF32 rounds to 10 bits; one flipped code moves a logit by its weight x 1 / 64
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_a_kept_engine_is_found_again(tmp_path):
    source = save(tmp_path / "m.onnx", quantized=True)
    settings = ENGINES.build(f"onnxruntime-tensorrt:max_batch=8,cache={tmp_path / 'cache'}")
    try:
        opened = settings.open(source)
    except EngineUnavailableError as error:
        pytest.skip(str(error))
    with opened as engine:
        first = engine.predict(X)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.engine")}
    assert kept
    with settings.open(source) as engine:
        assert np.array_equal(engine.predict(X), first)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.engine")} == kept
