"""The twin runs the int8 file itself, with the gradients that its settings ask for."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from onnx import helper, numpy_helper  # noqa: E402

from rctk_export.engine import Source  # noqa: E402
from rctk_export.engines import ENGINES  # noqa: E402
from rctk_export.engines.reference import Reference  # noqa: E402
from rctk_export.engines.twin import Twin  # noqa: E402
from rctk_export.input_spec import InputSpec  # noqa: E402
from rctk_kernels.errors import EngineUnavailableError, OptionError  # noqa: E402

SPEC = InputSpec(channels=1, height=2, width=2)
CODES = np.random.default_rng(0).integers(-127, 128, size=(5, 4)).astype(np.int8)


@pytest.fixture
def source(tmp_path):
    """Four pixels in steps of 1/64, int8 weights, five logits."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("QuantizeLinear", ["f", "sx", "zx"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "sx", "zx"], ["d"]),
        helper.make_node("DequantizeLinear", ["codes", "sw"], ["w"]),
        helper.make_node("Gemm", ["d", "w"], ["y"], transB=1),
    ]
    constants = {"sx": np.float32(1 / 64), "zx": np.uint8(0), "codes": CODES, "sw": np.float32(0.01)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 1, 2, 2])],
        [helper.make_tensor_value_info("y", 1, ["n", 5])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    path = tmp_path / "int8.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return Source(path=path, input=SPEC, role="int8")


def pixels(count):
    return np.random.default_rng(1).random((count, 1, 2, 2), dtype=np.float32)


@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_logits_are_those_of_the_integer_arithmetic(source, mode):
    x = pixels(50)
    with ENGINES.build(f"twin:mode={mode}").open(source) as engine:
        logits = engine.predict(x)
    codes = np.rint(x.reshape(50, 4) * 64)
    expected = (codes @ CODES.T.astype(np.float64)) * (1 / 64 * np.float64(np.float32(0.01)))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    if mode == "exact":
        assert np.array_equal(logits, expected.astype(np.float32))
        with Reference().open(source) as reference:
            assert np.array_equal(logits, reference.predict(x))


@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_gradients_pass_the_quantizer_inside_its_range(source, mode):
    images = torch.tensor([[[[0.5, -0.2], [1.0, 0.3]]]], requires_grad=True)
    with Twin(mode=mode).open(source) as engine:
        engine.module(images)[0, 0].backward()
    expected = 0.01 * CODES[0] * [1, 0, 1, 1]  # -0.2 lies below the smallest code
    np.testing.assert_allclose(images.grad.flatten().numpy(), expected, rtol=1e-6)


def test_the_identity_estimator_passes_everything(source):
    images = torch.tensor([[[[0.5, -0.2], [1.0, 0.3]]]], requires_grad=True)
    with ENGINES.build("twin:ste=identity").open(source) as engine:
        engine.module(images)[0, 0].backward()
    np.testing.assert_allclose(images.grad.flatten().numpy(), 0.01 * CODES[0], rtol=1e-6)


def test_wrong_settings_are_refused(source):
    with pytest.raises(OptionError, match="mode"):
        ENGINES.build("twin:mode=quick")
    with pytest.raises(OptionError, match="mode must be one of"):
        Twin(mode="quick").open(source)


def test_a_missing_device_is_refused(source):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(EngineUnavailableError, match="use device=cpu"):
        Twin(device="cuda:3").open(source)
