"""What ONNX Runtime does with providers that are absent, dropped, or run only a part; the CPU wheel is enough."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from rctk_export.batching import End
from rctk_export.engine import Source
from rctk_export.engines import ENGINES
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import EngineError, EngineUnavailableError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from rctk_export.engines import onnxruntime_provider as provider  # noqa: E402
from rctk_export.engines import onnxruntime_session as module  # noqa: E402
from rctk_export.engines import onnxruntime_wheel as wheel  # noqa: E402
from rctk_export.engines.onnxruntime import OnnxRuntimeEngine  # noqa: E402
from rctk_export.engines.onnxruntime_binding import DeviceBinding  # noqa: E402

SPEC = InputSpec(channels=1, height=2, width=2)
AZURE = "AzureExecutionProvider"
"""A provider of the CPU wheel that runs no ordinary operator: what any provider is that lacks an operator."""
needs_azure = pytest.mark.skipif(not wheel.present(AZURE), reason="this ONNX Runtime has no provider without kernels")


@pytest.fixture
def source(tmp_path):
    nodes = [
        onnx.helper.make_node("Relu", ["images"], ["positive"], name="relu"),
        onnx.helper.make_node("Flatten", ["positive"], ["logits"], name="flat"),
    ]
    value = onnx.helper.make_tensor_value_info
    ends = (
        [value("images", onnx.TensorProto.FLOAT, ["N", 1, 2, 2])],
        [value("logits", onnx.TensorProto.FLOAT, ["N", 4])],
    )
    graph = onnx.helper.make_graph(nodes, "g", *ends)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "m.onnx")
    return Source(path=tmp_path / "m.onnx", input=SPEC)


@pytest.mark.parametrize(
    ("engine", "extra"), [("onnxruntime-cuda", "ort-gpu"), ("onnxruntime-tensorrt", "ort-tensorrt")]
)
def test_a_wheel_without_the_provider_is_answered_with_the_one_that_has_it(source, engine, extra):
    settings = ENGINES.build(engine)
    if wheel.present(wheel.CUDA):
        pytest.skip("this is the GPU wheel")
    with pytest.raises(EngineUnavailableError, match=r"has no \w+ExecutionProvider, only .*CPU") as caught:
        settings.open(source)
    assert f"pip install 'rctk[{extra}]'" in str(caught.value)
    assert "pip uninstall onnxruntime" in str(caught.value)
    assert "\n" not in str(caught.value)


@needs_azure
def test_nodes_that_the_provider_lacks_are_named_and_nothing_is_printed(source, capfd):
    order = module.Order(provider=AZURE, remedy="do this")
    with pytest.raises(
        EngineError, match=r"cannot run 2 of 2 nodes of m.onnx \(relu \(Relu\), flat \(Flatten\)\)"
    ) as caught:
        module.open_session(source, order)
    assert str(caught.value).endswith("would run on the CPU; do this")
    assert capfd.readouterr() == ("", "")


@needs_azure
def test_an_older_onnxruntime_refuses_without_names(source, monkeypatch):
    monkeypatch.setattr(module, "read_placement", lambda session: {})
    with pytest.raises(
        EngineError, match=r"cannot run all nodes of m.onnx, .* does not tell which \(1.24 does\); do this"
    ):
        module.open_session(source, module.Order(provider=AZURE, remedy="do this"))


@needs_azure
def test_nodes_may_run_where_the_order_allows_it(source):
    session = module._create(source, module.Order(provider=AZURE), strict=False)
    placed = module.read_placement(session)
    assert placed == {wheel.CPU: ("relu (Relu)", "flat (Flatten)")}
    allowed = module.Order(provider=AZURE, rest=((wheel.CPU, {}),))
    module._check_placed(source, allowed, placed)
    with pytest.raises(EngineError, match="2 of 2 nodes"):
        module._check_placed(source, module.Order(provider=AZURE), placed)


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_a_provider_that_onnxruntime_drops_is_an_error_with_the_loaders_reason(source):
    if wheel.present(wheel.CUDA):
        pytest.skip("this is the GPU wheel")
    with pytest.raises(EngineUnavailableError, match=r"did not start: .*providers_cuda.so: cannot open shared object"):
        module.open_session(source, module.Order(provider=wheel.CUDA))


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_a_provider_that_is_dropped_without_a_reason_is_an_error_too(source):
    with pytest.raises(EngineUnavailableError, match=r"Dml\w+ did not start, ONNX Runtime offers CPUExecutionProvider"):
        module.open_session(source, module.Order(provider="DmlExecutionProvider"))


def test_an_option_that_came_out_otherwise_is_an_error(source):
    class Session:
        def get_provider_options(self):
            return {"P": {"use_tf32": "1", "device_id": "0", "path": "/x"}}

    module._check_options(Session(), module.Order(provider="P", options={"device_id": "0", "path": "/y", "new": "1"}))
    with pytest.raises(EngineError, match="P runs with use_tf32=1 though 0 was asked for"):
        module._check_options(Session(), module.Order(provider="P", options={"use_tf32": "0"}))


def test_an_onnxruntime_that_cannot_tell_leaves_the_placement_empty():
    assert module.read_placement(object()) == {}


def test_ends_are_read_without_building_anything(source):
    assert module.look_into(source) == (
        End("images", "float32", (None, 1, 2, 2)),
        End("logits", "float32", (None, 4)),
    )


@pytest.mark.parametrize("count", [0, 1, 3, 7])
@pytest.mark.parametrize("batches", [(1, None), (2, 3), (4, 4)])
def test_buffers_on_a_device_and_a_range_of_batches_change_no_answer(source, count, batches):
    opened = module.open_session(source, module.Order())
    binding = DeviceBinding(opened.session, opened.entry, opened.exit, "cpu", 0)
    x = np.random.default_rng(count).random((count, 1, 2, 2), dtype=np.float32)
    with OnnxRuntimeEngine(source, opened, binding=binding, batches=batches) as engine:
        logits = engine.predict(x)
        kept = logits.copy()
        engine.predict(np.ones((5, 1, 2, 2), dtype=np.float32))
    assert np.array_equal(logits, kept)
    assert np.array_equal(kept, x.reshape(count, 4))


def test_a_library_that_does_not_load_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(provider, "capi", lambda: tmp_path)
    (tmp_path / provider.LIBRARIES[provider.CUDA]).write_bytes(b"no library")
    assert "libonnxruntime_providers_cuda.so: file too short" in provider.load_failure(provider.CUDA)
    assert provider.load_failure("AzureExecutionProvider") == ""


def test_a_provider_whose_libraries_load_needs_a_gpu(tmp_path, monkeypatch):
    def no_gpu():
        raise EngineUnavailableError("no NVIDIA GPU here")

    monkeypatch.setattr(provider.ctypes, "CDLL", lambda path: object())
    monkeypatch.setattr(provider, "load_cuda", no_gpu)
    assert provider.load_failure(provider.TENSORRT) == "no NVIDIA GPU here"
    monkeypatch.setattr(provider, "load_cuda", object)
    assert provider.load_failure(provider.TENSORRT) == ""


def test_the_tensorrt_that_was_linked_is_the_one_that_is_loaded(tmp_path, monkeypatch):
    library, wheel = tmp_path / "provider.so", tmp_path / "wheel"
    wheel.mkdir()
    (wheel / "libnvinfer.so.10").touch()
    library.write_bytes(b"\x7fELF..libnvinfer.so.10\0libnvonnxparser.so.10\0libc.so.6\0libnvinfer_plugin.so\0")
    assert provider.linked(library) == {"libnvinfer.so.10", "libnvonnxparser.so.10"}
    asked = []

    class Library:
        def __init__(self, path, mode):
            asked.append((path, mode))

        def getInferLibVersion(self):
            return 101303

    monkeypatch.setattr(provider.ctypes, "CDLL", Library)
    assert provider.load_tensorrt(library, [wheel]) == "10.13.3"
    assert asked == [
        (str(wheel / "libnvinfer.so.10"), ctypes.RTLD_GLOBAL),
        ("libnvonnxparser.so.10", ctypes.RTLD_GLOBAL),
    ]


def test_a_missing_tensorrt_is_named_with_the_wheel_that_has_it(tmp_path):
    library = tmp_path / "provider.so"
    library.write_bytes(b"libnvinfer.so.999\0")
    with pytest.raises(EngineUnavailableError, match=r"libnvinfer.so.999: cannot open.*rctk\[ort-tensorrt\]"):
        provider.load_tensorrt(library, [])
    with pytest.raises(EngineUnavailableError, match="links no TensorRT"):
        provider.load_tensorrt(tmp_path / "none.so", [])


def test_folders_of_wheels():
    assert provider.wheel_folders("no_such_package_anywhere") == []
    assert provider.wheel_folders("rctk_export")[0].name == "rctk_export"
