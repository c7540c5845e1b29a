"""The float file in PyTorch: threads, devices, and the module for white-box attacks."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from onnx import helper, numpy_helper  # noqa: E402

from rctk_export.engine import Source  # noqa: E402
from rctk_export.engines import ENGINES  # noqa: E402
from rctk_export.engines.torch import Torch  # noqa: E402
from rctk_export.input_spec import InputSpec  # noqa: E402
from rctk_kernels.errors import EngineError, EngineUnavailableError, OptionError, UnsupportedOperatorError  # noqa: E402

SPEC = InputSpec(channels=1, height=2, width=2)


def source(path, *, op="Gemm", weight=((1, 0), (0, 1), (1, 1), (0, 0))):
    """Four pixels, two logits."""
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node(op, ["f", "w"], ["y"], name="last")]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 1, 2, 2])],
        [helper.make_tensor_value_info("y", 1, ["n", 2])],
        [numpy_helper.from_array(np.array(weight, np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return Source(path=path, input=SPEC)


X = np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2) / 8


def test_logits_of_known_pixels(tmp_path):
    with ENGINES.build("torch").open(source(tmp_path / "m.onnx")) as engine:
        assert engine.predict(X).tolist() == [[0.25, 0.375], [1.25, 1.375]]


def test_the_module_gives_gradients_to_images_only(tmp_path):
    with Torch().open(source(tmp_path / "m.onnx")) as engine:
        images = torch.from_numpy(X).requires_grad_()
        engine.module(images)[:, 0].sum().backward()
        assert images.grad.flatten(1).tolist() == [[1, 0, 1, 0]] * 2
        assert not any(parameter.requires_grad for parameter in engine.module.parameters())
        assert not engine.module.training


def test_predict_works_beside_gradients_and_keeps_read_only_images(tmp_path):
    x = X.copy()
    x.flags.writeable = False
    with Torch().open(source(tmp_path / "m.onnx")) as engine:
        engine.predict(x)
        images = torch.from_numpy(X).requires_grad_()
        engine.module(images).sum().backward()  # what predict keeps may not be inference tensors
        assert engine.predict(x).flags.writeable
    assert np.array_equal(x, X)


def test_threads_hold_during_predict_only(tmp_path, monkeypatch):
    before = torch.get_num_threads()
    with Torch(threads=before + 1).open(source(tmp_path / "m.onnx")) as engine:
        seen = []
        run = engine.module.forward
        monkeypatch.setattr(engine.module, "forward", lambda x: seen.append(torch.get_num_threads()) or run(x))
        engine.predict(X)
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_settings_are_checked():
    with pytest.raises(OptionError, match="threads must be 0"):
        Torch(threads=-1)


def test_a_device_that_is_not_here_is_refused_and_never_replaced(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(EngineUnavailableError, match="'cuda' is not here"):
        Torch(device="cuda").open(source(tmp_path / "m.onnx"))
    with pytest.raises(OptionError, match="unknown device 'gpu0'"):
        Torch(device="gpu0").open(source(tmp_path / "m.onnx"))


def test_an_unknown_operator_is_named_on_opening(tmp_path):
    with pytest.raises(UnsupportedOperatorError, match="NonMaxSuppression"):
        Torch().open(source(tmp_path / "m.onnx", op="NonMaxSuppression"))


def test_sizes_that_do_not_fit_give_one_line(tmp_path):
    failing = pytest.raises(EngineError, match=r"PyTorch failed on a batch of 2: .*shapes")
    with Torch().open(source(tmp_path / "m.onnx", weight=((1, 0), (0, 1)))) as engine, failing as caught:
        engine.predict(X)
    assert "\n" not in str(caught.value)


def test_a_closed_engine_says_so(tmp_path):
    with Torch().open(source(tmp_path / "m.onnx")) as engine:
        pass
    with pytest.raises(EngineError, match="closed"):
        engine.predict(X)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_logits(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    with Torch(device="cuda").open(source(tmp_path / "m.onnx")) as engine:
        assert engine.predict(X).tolist() == [[0.25, 0.375], [1.25, 1.375]]
        assert next(engine.module.parameters()).device.type == "cuda"
