"""The tensorrt engine on every generation: what an engine owes its caller, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np
import onnx
import pytest

from rctk.measure.hooks import PlansMemory, TimesDevice
from rctk_export.engine import Source
from rctk_export.engines import ENGINES
from rctk_export.engines.onnxruntime import OnnxRuntime
from rctk_export.input_spec import InputSpec
from rctk_export.tensorrt.record import record_path
from rctk_kernels.errors import EngineError, EngineUnavailableError, OptionError

SPEC = InputSpec(channels=3, height=8, width=8)


def images(count, seed=0):
    return np.random.default_rng(seed).random((count, *SPEC.shape), dtype=np.float32)


def expected(source, x):
    with OnnxRuntime(optimize=False).open(source) as engine:
        return engine.predict(x)


@pytest.fixture(params=["tensorrt", "tensorrt:cuda_graph=true"])
def engine(request):
    return ENGINES.build(request.param)


@pytest.fixture
def built(world, source, make_plan):
    s = source()
    make_plan(s, min_batch=2, opt_batch=4, max_batch=4)
    return s


@pytest.mark.parametrize("count", [0, 1, 3, 4, 9])
def test_a_batch_of_any_size_gives_its_logits(built, engine, count):
    with engine.open(built) as opened:
        logits = opened.predict(images(count))
        assert (logits.shape, logits.dtype) == ((count, 5), np.float32)
        np.testing.assert_allclose(logits, expected(built, images(count)), rtol=1e-5)


def test_the_answer_does_not_depend_on_memory_layout_or_earlier_calls(built, engine):
    x = images(4)
    with engine.open(built) as opened:
        first = opened.predict(x)
        kept = first.copy()
        opened.predict(images(4, seed=1))
        opened.predict(images(3, seed=2))
        assert np.array_equal(first, kept)
        assert np.array_equal(opened.predict(x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)), kept)
        first[:] = 7
        assert np.array_equal(opened.predict(x), kept)
    assert np.array_equal(x, images(4))


def test_everything_is_given_back_and_a_closed_engine_says_so(built, engine, world):
    with engine.open(built) as opened:
        opened.predict(images(4))
        assert world.cuda.live
    assert world.cuda.live == {}
    with pytest.raises(EngineError, match="closed; open it again"):
        opened.predict(images(1))


def test_a_recorded_graph_is_launched_again_and_replaces_the_enqueue(built, world):
    with ENGINES.build("tensorrt:cuda_graph=true").open(built) as opened:
        for _ in range(3):
            opened.predict(images(4))
    calls = world.cuda.calls
    assert (calls.count("cudaStreamBeginCapture"), calls.count("cudaGraphLaunch")) == (1, 3)
    assert calls.count("cudaMemcpyAsync") == 4  # one plain run, one recording, in and out


def test_nan_travels_to_the_logits_and_wrong_images_are_refused(world, source, make_plan, engine):
    plain = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> agraph (float[N,3,8,8] images) => (float[N,3] logits) '
        "{ pool = GlobalAveragePool (images)  logits = Flatten (pool) }"
    )
    s = source(plain)
    make_plan(s)
    x = images(2)
    x[1] = np.nan
    with engine.open(s) as opened:
        logits = opened.predict(x)
        with pytest.raises(EngineError, match=r"\(N, 3, 8, 8\), got \(1, 1, 8, 8\)"):
            opened.predict(np.zeros((1, 1, 8, 8), np.float32))
    assert np.isfinite(logits[0]).all()
    assert np.isnan(logits[1]).all()


def test_a_graph_with_uint8_input_is_fed_rounded_pixels(world, source, make_plan, graph, engine):
    s = source(graph(kind=onnx.TensorProto.UINT8))
    make_plan(s)
    with engine.open(s) as opened:
        np.testing.assert_allclose(opened.predict(images(3)), expected(s, images(3)), rtol=1e-5)


def test_a_file_of_fixed_batch_takes_any_number_of_images(world, source, make_plan, graph, engine):
    s = source(graph(batch=4))
    make_plan(s, min_batch=4, opt_batch=4, max_batch=4)
    with engine.open(s) as opened:
        np.testing.assert_allclose(opened.predict(images(7)), expected(s, images(7)), rtol=1e-5)


def test_a_plan_may_be_named_or_be_the_source_itself(world, source, make_plan, tmp_path):
    s = source()
    make_plan(s, out=tmp_path / "deep" / "my.plan")
    plan = tmp_path / "deep" / "my.plan"
    for engine, opened in ((f"tensorrt:plan={plan}", s), ("tensorrt", dataclasses.replace(s, path=plan, sha256=""))):
        with ENGINES.build(engine).open(opened) as loaded:
            np.testing.assert_allclose(loaded.predict(images(2)), expected(s, images(2)), rtol=1e-5)


def other(record, **changes):
    """Rewrite the place of a record."""
    values = json.loads(record.read_text())
    values["place"].update(changes)
    record.write_text(json.dumps(values))


ELSEWHERE = [
    ({"tensorrt": "10.9.0"}, r"built for TensorRT 10\.9\.0, here is 1"),
    ({"gpu": "NVIDIA H200"}, "built for the GPU NVIDIA H200, here is Orin"),
    ({"compute_capability": "9.0"}, r"a GPU of compute capability 9\.0, here is compute capability 8\.7"),
    ({"system": "Windows AMD64"}, "the system Windows AMD64"),
]


@pytest.mark.parametrize(("changes", "reason"), ELSEWHERE)
def test_a_plan_from_elsewhere_is_refused_before_it_is_loaded(built, world, changes, reason):
    world.deserialized = 0
    other(record_path(built.path.with_suffix(".plan")), **changes)
    with pytest.raises(EngineError, match=reason) as caught:
        ENGINES.build("tensorrt").open(built)
    assert "rctk build" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert world.deserialized == 0


def test_a_compatible_plan_runs_on_what_its_options_allow(install, source, make_plan):
    world, s = install("10.16.1.11"), source()
    make_plan(s, version_compatible=True, hardware="ampere-plus")
    record = record_path(s.path.with_suffix(".plan"))
    other(record, tensorrt="10.3.0", gpu="another", compute_capability="9.0")
    with ENGINES.build("tensorrt").open(s) as opened:
        assert opened.predict(images(1)).shape == (1, 5)
    other(record, tensorrt="11.4.0")
    with pytest.raises(EngineError, match="TensorRT"):
        ENGINES.build("tensorrt").open(s)
    world.cuda.capability = (7, 5)
    other(record, tensorrt="10.3.0")
    with pytest.raises(EngineError, match="Ampere"):
        ENGINES.build("tensorrt").open(s)


def test_a_compatible_plan_of_10_runs_on_11(install, source, make_plan):
    s = source()
    install("11.4.0.106")
    make_plan(s, version_compatible=True)
    other(record_path(s.path.with_suffix(".plan")), tensorrt="10.3.0")
    with ENGINES.build("tensorrt").open(s) as opened:
        assert opened.predict(images(1)).shape == (1, 5)


def test_the_same_model_of_gpu_may_run_a_plan_for_one_compute_capability(install, source, make_plan):
    install("10.13.3.9")
    s = source()
    make_plan(s, hardware="same-compute-capability")
    other(record_path(s.path.with_suffix(".plan")), gpu="another")
    ENGINES.build("tensorrt").open(s).__exit__()
    other(record_path(s.path.with_suffix(".plan")), compute_capability="8.6")
    with pytest.raises(EngineError, match=r"compute capability 8\.6"):
        ENGINES.build("tensorrt").open(s)


def test_a_changed_plan_and_one_of_another_file_are_refused(built, world):
    plan, world.deserialized = built.path.with_suffix(".plan"), 0
    with pytest.raises(EngineError, match="built from another file"):
        ENGINES.build("tensorrt").open(dataclasses.replace(built, sha256="0" * 64))
    plan.write_bytes(plan.read_bytes()[:-1] + b"x")
    with pytest.raises(EngineError, match="not the plan that its record describes"):
        ENGINES.build("tensorrt").open(built)
    assert world.deserialized == 0


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"schema": 2}', b"\xff"])
def test_a_damaged_record_is_refused(built, content):
    record_path(built.path.with_suffix(".plan")).write_bytes(content)
    with pytest.raises(EngineError, match=r"damaged or no record of a plan .*rctk build"):
        ENGINES.build("tensorrt").open(built)


def test_a_plan_without_record_and_no_plan_at_all_are_refused(built):
    plan = built.path.with_suffix(".plan")
    record_path(plan).unlink()
    with pytest.raises(EngineError, match="nobody knows where it was built"):
        ENGINES.build("tensorrt").open(built)
    plan.unlink()
    with pytest.raises(EngineError, match=r"there is no plan .*rctk build"):
        ENGINES.build("tensorrt").open(built)


def test_a_plan_that_tensorrt_cannot_load_gives_its_reason(built, world):
    world.load_error = "The engine plan file is not compatible with this version of TensorRT"
    with pytest.raises(EngineError, match=r"cannot load int8-tensorrt\.plan: The engine plan file"):
        ENGINES.build("tensorrt").open(built)
    assert world.cuda.live == {}


def test_a_wrong_input_spec_is_refused(built):
    with pytest.raises(EngineError, match="mend --input"):
        ENGINES.build("tensorrt").open(dataclasses.replace(built, input=InputSpec(channels=1, height=8, width=8)))


def test_out_of_device_memory_suggests_a_smaller_batch(built, world):
    world.context_fails = True
    with pytest.raises(EngineError, match=r"does not fit .* MiB free .*smaller batch"):
        ENGINES.build("tensorrt").open(built)
    world.context_fails, world.cuda.memory_bytes = False, 5000  # one input buffer of 4 images has 3072 bytes
    with pytest.raises(EngineError, match=r"does not fit .*smaller batch"):
        ENGINES.build("tensorrt").open(built)
    assert world.cuda.live == {}


@pytest.mark.parametrize("call", ["set_tensor_address", "set_input_shape", "infer_shapes", "execute_async_v3"])
def test_a_call_that_fails_by_its_return_value_is_noticed(built, world, call):
    world.refuses = {call}
    with pytest.raises(EngineError, match=r"int8-tensorrt\.plan"), ENGINES.build("tensorrt").open(built) as opened:
        opened.predict(images(4))
    assert world.cuda.live == {}
    if call == "execute_async_v3":
        return
    world.refuses = set()
    with ENGINES.build("tensorrt").open(built) as opened:
        assert opened.predict(images(4)).shape == (4, 5)


def test_an_error_of_a_kernel_is_named(built, world):
    with ENGINES.build("tensorrt").open(built) as opened:
        world.cuda.fail["cudaStreamSynchronize"] = 700
        with pytest.raises(EngineError, match="failed on a batch of 4: cudaStreamSynchronize: cudaErrorUnknown"):
            opened.predict(images(4))
        world.cuda.fail.clear()


def test_no_gpu_a_wrong_driver_and_no_cuda_are_told_apart(built, world, monkeypatch):
    world.cuda.devices = 0
    with pytest.raises(EngineUnavailableError, match=r"no NVIDIA GPU|cudaErrorUnknown.*NVIDIA GPU"):
        ENGINES.build("tensorrt").open(built)
    world.cuda.devices, world.cuda.driver = 1, 11040
    world.cuda.fail["cudaGetDeviceCount"] = 35
    with pytest.raises(EngineUnavailableError, match=r"driver for CUDA 11\.4, runtime 12\.6.*update the NVIDIA driver"):
        ENGINES.build("tensorrt").open(built)
    world.cuda.fail.clear()
    with pytest.raises(EngineUnavailableError, match="there is no GPU 3, this machine has 1"):
        ENGINES.build("tensorrt:device=3").open(built)


def test_a_missing_library_is_told(built, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("rctk_export.tensorrt.")]:
        if name.rpartition(".")[2] in {"api", "here", "session"}:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineUnavailableError, match=r"TensorRT cannot be imported .*pip install 'rctk\[tensorrt\]'"):
        ENGINES.build("tensorrt").open(built)


@pytest.mark.parametrize(("version", "reason"), [("8.6.1", "too old"), ("10.2.0", "too old"), ("12.0.0", "newer")])
def test_another_generation_of_tensorrt_is_refused(install, source, version, reason, make_plan):
    install(version)
    with pytest.raises(EngineUnavailableError, match=f"TensorRT {version} is {reason}"):
        make_plan(source())


def test_a_negative_device_is_refused():
    with pytest.raises(OptionError, match="device"):
        ENGINES.build("tensorrt:device=-1")


def test_a_source_without_role_needs_no_more_than_its_path(built):
    with ENGINES.build("tensorrt").open(Source(path=built.path, input=SPEC)) as opened:
        assert opened.predict(images(1)).shape == (1, 5)
        assert opened.record.model_role == "int8"
        assert opened.notes == ()


def test_events_time_the_work_of_the_last_predict_when_they_are_asked_for(built, engine):
    with engine.open(built) as opened:
        assert isinstance(opened, TimesDevice)
        assert isinstance(opened, PlansMemory)
        opened.predict(images(4))
        assert opened.device_ms() == 0
        opened.time_device()
        opened.time_device()
        assert np.array_equal(opened.predict(images(4)), opened.predict(images(4)))
        assert opened.device_ms() == 1.5  # what the fake says of every pair of events
        opened.predict(images(9))
        assert opened.device_ms() == 4.5  # three chunks of at most four images
        assert opened.planned_bytes() > 0
    with pytest.raises(EngineError, match="closed"):
        opened.time_device()
