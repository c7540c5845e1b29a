"""Programs made and run by ExecuTorch; skipped where it is not installed."""

import hashlib

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("executorch", reason="ExecuTorch is not installed (pip install 'rctk[executorch]')")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from rctk_export.bundle import file_sha256  # noqa: E402
from rctk_export.engine import Source  # noqa: E402
from rctk_export.engines.executorch import ExecuTorch  # noqa: E402
from rctk_export.engines.executorch_build import build_program  # noqa: E402
from rctk_export.engines.executorch_program import ProgramLayer, program_path, read_record  # noqa: E402
from rctk_export.engines.twin import Twin  # noqa: E402
from rctk_export.input_spec import InputSpec  # noqa: E402
from rctk_kernels.errors import EngineError, OptionError  # noqa: E402

SPEC = InputSpec(channels=2, height=4, width=4)
GRIDS = {
    "in.scale": np.float32(0.00393),
    "in.zero": np.uint8(0),
    "mid.scale": np.float32(0.0317),
    "mid.zero": np.uint8(3),
    "w.scale": np.float32([0.0079, 0.0041]),
    "w.zero": np.zeros(2, np.int8),
    "v.scale": np.float32([0.0077, 0.0159, 0.0043]),
    "v.zero": np.zeros(3, np.int8),
}
"""No ratio of scales is a simple fraction: on exact ties between two codes XNNPACK and the twin need not agree."""


def pair(name, grid):
    inputs = [f"{grid}.scale", f"{grid}.zero"]
    return [
        helper.make_node("QuantizeLinear", [name, *inputs], [f"{name}.q"]),
        helper.make_node("DequantizeLinear", [f"{name}.q", *inputs], [f"{name}.dq"]),
    ]


def weight(name):
    inputs = [f"{name}.codes", f"{name}.scale", f"{name}.zero"]
    return helper.make_node("DequantizeLinear", inputs, [f"{name}.dq"], axis=0)


def save(path, kind=TensorProto.FLOAT):
    """Write convolution, residual add, pooling, linear layer: the form of our cpu files."""
    rng = np.random.default_rng(0)
    stored = GRIDS | {
        "w.codes": rng.integers(-127, 128, (2, 2, 3, 3)).astype(np.int8),
        "v.codes": rng.integers(-127, 128, (3, 8)).astype(np.int8),
        "byte": np.float32(1 / 255),
    }
    cast = [
        helper.make_node("Cast", ["images"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["number", "byte"], ["real"]),
    ]
    nodes = [
        *(cast if kind == TensorProto.UINT8 else [helper.make_node("Identity", ["images"], ["real"])]),
        *pair("real", "in"),
        weight("w"),
        weight("v"),
        helper.make_node("Conv", ["real.dq", "w.dq"], ["conv"], pads=[1] * 4, kernel_shape=[3, 3]),
        *pair("conv", "mid"),
        helper.make_node("Add", ["conv.dq", "real.dq"], ["sum"]),
        *pair("sum", "mid"),
        helper.make_node("MaxPool", ["sum.dq"], ["pool"], kernel_shape=[2, 2], strides=[2, 2]),
        *pair("pool", "mid"),
        helper.make_node("Flatten", ["pool.dq"], ["flat"]),
        *pair("flat", "mid"),
        helper.make_node("Gemm", ["flat.dq", "v.dq"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "int8",
        [helper.make_tensor_value_info("images", kind, ["N", 2, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return Source(path=path, input=SPEC, role="int8", sha256=file_sha256(path))


def images(count, seed=0):
    return np.random.default_rng(seed).random((count, *SPEC.shape), dtype=np.float32)


def twin(source, x):
    with Twin().open(source) as engine:
        return engine.predict(x)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    made = save(tmp_path_factory.mktemp("executorch") / "net.onnx")
    build_program(made, program_path(made.path), batch=2)
    return made


def test_xnnpack_runs_the_convolution_in_int8_and_leaves_logits_unrounded(source):
    record = read_record(program_path(source.path))
    assert record.layers == (
        ProgramLayer("Conv2d", (2, 3, 3, 2), "qint8"),
        ProgramLayer("FullyConnected", (3, 8), "fp32"),
    )
    assert (record.batch, record.outside, record.onnx_sha256) == (2, (), source.sha256)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 17])
def test_a_batch_of_any_size_gives_the_logits_of_the_twin(source, count):
    with ExecuTorch().open(source) as engine:
        logits = engine.predict(images(count))
    assert logits.shape == (count, 3)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, twin(source, images(count)), rtol=1e-5, atol=1e-5)


def test_the_answer_does_not_depend_on_memory_layout_or_earlier_calls(source):
    x = images(4)
    x.flags.writeable = False
    with ExecuTorch().open(source) as engine:
        first = engine.predict(x)
        kept = first.copy()
        engine.predict(images(4, seed=1))
        assert np.array_equal(first, kept)
        assert np.array_equal(engine.predict(x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)), kept)
        first[:] = 7
        assert np.array_equal(engine.predict(x[:2]), kept[:2])


def test_wrong_images_and_closed_engines_are_refused(source):
    wrong = pytest.raises(EngineError, match=r"\(N, 2, 4, 4\), got \(1, 3, 4, 4\)")
    with ExecuTorch().open(source) as engine, wrong:
        engine.predict(np.zeros((1, 3, 4, 4), dtype=np.float32))
    with pytest.raises(EngineError, match="closed"):
        engine.predict(images(2))
    with pytest.raises(EngineError, match=r"takes images \(2, 4, 4\), the input spec says \(1, 4, 4\)"):
        ExecuTorch().open(Source(path=source.path, input=InputSpec(channels=1, height=4, width=4)))


def test_engines_that_are_open_together_share_their_threads(source):
    with ExecuTorch(threads=2).open(source) as two, ExecuTorch(threads=2).open(source) as other:
        assert np.array_equal(two.predict(images(2)), other.predict(images(2)))
        with pytest.raises(EngineError, match=r"with 2 threads is open.*use threads=2"):
            ExecuTorch(threads=1).open(source)
    with ExecuTorch(threads=1).open(source) as one:
        np.testing.assert_allclose(one.predict(images(2)), twin(source, images(2)), rtol=1e-5, atol=1e-5)


def test_what_is_no_program_is_refused_in_one_line(source, tmp_path):
    record = read_record(program_path(source.path))
    wrong = tmp_path / "wrong.pte"
    content = b"no program at all" * 9
    wrong.write_bytes(content)
    changed = record.text().replace(record.program_sha256, hashlib.sha256(content).hexdigest())
    wrong.with_name("wrong.pte.json").write_text(changed)
    with pytest.raises(EngineError, match=r"cannot load .*wrong.pte"):
        ExecuTorch(program=str(wrong)).open(source)


def test_a_graph_with_uint8_input_is_fed_rounded_pixels(tmp_path):
    pixels = save(tmp_path / "pixels.onnx", TensorProto.UINT8)
    record = build_program(pixels, tmp_path / "pixels.pte")
    assert record.layers[0].int8
    with ExecuTorch(program=str(tmp_path / "pixels.pte")).open(pixels) as engine:
        np.testing.assert_allclose(engine.predict(images(3)), twin(pixels, images(3)), rtol=1e-5, atol=1e-5)


def test_senseless_settings_are_refused(source, tmp_path):
    with pytest.raises(OptionError, match="threads must be 1"):
        ExecuTorch(threads=0)
    with pytest.raises(OptionError, match=r"batch must be 1 to 4096, got 0; mend --opt-batch"):
        build_program(source, tmp_path / "x.pte", batch=0)
