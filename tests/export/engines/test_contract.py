"""What every engine that runs an ONNX file owes its caller."""

import numpy as np
import pytest

from rctk_export.engine import Source
from rctk_export.engines import ENGINES
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import EngineError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

ONNX_ENGINES = [
    *("onnxruntime", "onnxruntime:optimize=false", "onnxruntime:io_binding=true"),
    *("openvino", "openvino:batch=2"),
    *("reference", "torch", "twin", "twin:mode=exact"),
]
SPEC = InputSpec(channels=2, height=3, width=3)


def classifier(path, batch="N", kind=onnx.TensorProto.FLOAT, outputs=("logits",), inputs=("images",)):
    """Write 2x3x3 images -> Flatten -> Gemm -> 4 logits; ``logits = 2 * sum of pixels k, k+4, ... + k``."""
    weight = np.zeros((18, 4), dtype=np.float32)
    weight[np.arange(18), np.arange(18) % 4] = 2
    nodes = [
        onnx.helper.make_node("Cast", ["images"], ["real"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Flatten", ["real"], ["flat"]),
        onnx.helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"]),
        onnx.helper.make_node("Relu", ["logits"], ["positive"]),
    ]
    constants = {"weight": weight, "bias": np.arange(4, dtype=np.float32)}
    graph = onnx.helper.make_graph(
        nodes,
        "classifier",
        [onnx.helper.make_tensor_value_info(name, kind, [batch, 2, 3, 3]) for name in inputs],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [batch, 4]) for name in outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return Source(path=path, input=SPEC)


def expected(images):
    flat = images.reshape(len(images), 18)
    return np.stack([2 * flat[:, k::4].sum(axis=1) + k for k in range(4)], axis=1)


def images(count, seed=0):
    return np.random.default_rng(seed).random((count, *SPEC.shape), dtype=np.float32)


@pytest.fixture(params=ONNX_ENGINES)
def settings(request):
    if request.param.startswith(("torch", "twin")):
        pytest.importorskip("torch")
    if request.param.startswith("openvino"):
        pytest.importorskip("openvino")
    return ENGINES.build(request.param)


@pytest.mark.parametrize("count", [0, 1, 3, 17])
def test_a_batch_of_any_size_gives_its_logits(settings, tmp_path, count):
    with settings.open(classifier(tmp_path / "m.onnx")) as engine:
        logits = engine.predict(images(count))
    assert logits.shape == (count, 4)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected(images(count)), rtol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 4, 7])
def test_a_graph_of_fixed_batch_takes_any_number_of_images(settings, tmp_path, count):
    if getattr(settings, "batch", 0) not in {0, 4}:
        pytest.skip("the setting asks for another batch")
    with settings.open(classifier(tmp_path / "m.onnx", batch=4)) as engine:
        np.testing.assert_allclose(engine.predict(images(count)), expected(images(count)), rtol=1e-5)


def test_the_answer_does_not_depend_on_memory_layout_or_earlier_calls(settings, tmp_path):
    x = images(5)
    with settings.open(classifier(tmp_path / "m.onnx")) as engine:
        first = engine.predict(x)
        kept = first.copy()
        engine.predict(images(5, seed=1))
        assert np.array_equal(first, kept)
        assert np.array_equal(engine.predict(x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)), kept)
        assert np.array_equal(engine.predict(np.repeat(x, 2, axis=0)[::2]), kept)


def test_the_caller_owns_the_logits_and_keeps_its_images(settings, tmp_path):
    x, before = images(3), images(3)
    with settings.open(classifier(tmp_path / "m.onnx")) as engine:
        logits = engine.predict(x)
        logits[:] = 7
        np.testing.assert_allclose(engine.predict(x), expected(x), rtol=1e-5)
    assert np.array_equal(x, before)
    assert (logits == 7).all()


def test_a_graph_with_uint8_input_is_fed_rounded_pixels(settings, tmp_path):
    with settings.open(classifier(tmp_path / "m.onnx", kind=onnx.TensorProto.UINT8)) as engine:
        np.testing.assert_allclose(engine.predict(images(3)), expected(np.rint(images(3) * 255)), rtol=1e-5)


def test_nan_travels_to_the_logits(settings, tmp_path):
    x = images(2)
    x[1] = np.nan
    with settings.open(classifier(tmp_path / "m.onnx")) as engine:
        logits = engine.predict(x)
    assert np.isfinite(logits[0]).all()
    assert np.isnan(logits[1]).all()


def test_wrong_images_are_refused_with_both_shapes(settings, tmp_path):
    both = pytest.raises(EngineError, match=r"\(N, 2, 3, 3\), got \(1, 3, 3, 3\)")
    with settings.open(classifier(tmp_path / "m.onnx")) as engine, both:
        engine.predict(np.zeros((1, 3, 3, 3), dtype=np.float32))


def test_a_closed_engine_says_so(settings, tmp_path):
    with settings.open(classifier(tmp_path / "m.onnx")) as engine:
        pass
    with pytest.raises(EngineError, match="closed; open it again"):
        engine.predict(images(1))


def test_a_wrong_input_spec_is_refused_on_opening(settings, tmp_path):
    source = classifier(tmp_path / "m.onnx")
    with pytest.raises(EngineError, match="mend --input"):
        settings.open(Source(path=source.path, input=InputSpec(channels=3, height=3, width=3)))


def test_several_outputs_or_inputs_are_refused_by_name(settings, tmp_path):
    with pytest.raises(EngineError, match=r"2 outputs \(logits, positive\)"):
        settings.open(classifier(tmp_path / "a.onnx", outputs=("logits", "positive")))
    with pytest.raises(EngineError, match=r"2 inputs \(images, mask\)"):
        settings.open(classifier(tmp_path / "b.onnx", inputs=("images", "mask")))


@pytest.mark.parametrize("content", [b"", b"no model", None, "cut"])
def test_a_file_that_is_no_model_gives_one_line(settings, tmp_path, content):
    path = tmp_path / "m.onnx"
    if content == "cut":
        path.write_bytes(classifier(path).path.read_bytes()[:300])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineError) as caught:
        settings.open(Source(path=path, input=SPEC))
    assert "m.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_loading_a_broken_file_prints_nothing(settings, tmp_path, capfd):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(EngineError):
        settings.open(Source(path=path, input=SPEC))
    assert capfd.readouterr() == ("", "")
