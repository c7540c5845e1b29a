"""Building on every generation: what reaches TensorRT, what is written down, and each way in which it fails."""

from __future__ import annotations

import hashlib
import importlib
import json

import onnx
import pytest

from rctk_export.bundle_writer import BundleWriter
from rctk_export.engines import ENGINES
from rctk_export.input_spec import InputSpec
from rctk_export.tensorrt.options import BuildOptions
from rctk_export.tensorrt.record import layers_path, plan_path, read_record, record_path
from rctk_kernels.errors import EngineError, EngineUnavailableError, OptionError

SPEC = InputSpec(channels=3, height=8, width=8)


def flags(world):
    return {member.name for member in world.config.flags}


def test_the_record_says_everything_that_makes_the_plan_valid_here(world, source, make_plan, tmp_path):
    s = source()
    record = make_plan(s, max_batch=8, workspace_mib=64, out=tmp_path / "a.plan")
    plan = (tmp_path / "a.plan").read_bytes()
    assert record == read_record(tmp_path / "a.plan")
    assert record.plan_sha256 == hashlib.sha256(plan).hexdigest()
    assert (record.plan_bytes, record.onnx_sha256, record.role) == (len(plan), s.sha256, "plan")
    place = record.place
    assert (place.tensorrt, place.gpu, place.compute_capability) == (world.version, "Orin", "8.7")
    assert (place.cuda_runtime, place.cuda_driver) == ("12.6", "12.6")
    assert place.gpu_uuid == "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert (record.batches, record.options["workspace_mib"], record.typing) == ((1, 1, 8), 64, "strong")
    assert (record.report.quantized, record.report.count("int8"), record.report.reformats) == (3, 3, 1)
    assert json.loads(layers_path(tmp_path / "a.plan").read_text())["Layers"]
    assert not list(tmp_path.glob(".*.part"))


def test_a_default_build_is_strongly_typed_detailed_and_honest_float32(world, source, make_plan):
    make_plan(source())
    assert world.network.strong
    assert flags(world) == set()
    assert world.config.cleared == "TF32"
    assert world.config.profiling_verbosity.name == "DETAILED"
    assert world.config.profiles[0].shapes == [[1, 3, 8, 8], [1, 3, 8, 8], [32, 3, 8, 8]]
    assert world.config.pools == {}


def test_every_option_reaches_the_builder(world, source, make_plan):
    options = {"sparsity": True, "version_compatible": True, "tf32": True, "hardware": "ampere-plus"}
    record = make_plan(source(), workspace_mib=3, optimization_level=5, **options)
    assert flags(world) == {"SPARSE_WEIGHTS", "VERSION_COMPATIBLE"}
    assert world.config.pools == {"WORKSPACE": 3 << 20}
    assert world.config.builder_optimization_level == 5
    assert world.config.hardware_compatibility_level.name == "AMPERE_PLUS"
    assert not hasattr(world.config, "cleared")
    assert any("no layer has 2:4 sparse weights" in text for text in record.warnings)


def test_a_hardware_level_that_the_version_lacks_is_refused(install, source, make_plan):
    install("10.3.0")
    with pytest.raises(OptionError, match=r"TensorRT 10\.3\.0 has no SAME_COMPUTE_CAPABILITY"):
        make_plan(source(), hardware="same-compute-capability")


@pytest.mark.parametrize("rest", ["fp16", "bf16"])
def test_the_precision_of_the_rest_is_written_into_the_file(world, source, make_plan, rest, monkeypatch):
    build = importlib.import_module("rctk_export.tensorrt.build")
    seen = []
    monkeypatch.setattr(build, "_look_into", lambda plan, *rest: ('{"Layers": []}', 0))  # ONNX Runtime has no bfloat16
    monkeypatch.setattr(build, "expected_layers", lambda network: seen.append(network.content) or [])
    make_plan(source(), precision_rest=rest)
    kinds = {t.data_type for t in onnx.load_from_string(seen[0]).graph.initializer}
    assert {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}[rest] in kinds
    assert flags(world) == set()


def test_weak_typing_is_for_ten_only(world, source, make_plan):
    if world.eleven:
        with pytest.raises(OptionError, match="always strongly typed"):
            make_plan(source(), typing="weak")
        return
    record = make_plan(source(), typing="weak", precision_rest="fp16")
    assert not world.network.strong
    assert (flags(world), record.typing) == ({"INT8", "FP16"}, "weak")


def test_without_the_onnx_package_ten_falls_back_to_weak_typing_and_eleven_says_so(
    world, source, make_plan, monkeypatch
):
    prepare = importlib.import_module("rctk_export.tensorrt.prepare")
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: None)
    s = source()
    assert make_plan(s).typing == "strong"
    if world.eleven:
        with pytest.raises(OptionError, match=r"pip install onnx"):
            make_plan(s, precision_rest="fp16")
        return
    assert make_plan(s, precision_rest="fp16").typing == "weak"
    assert flags(world) == {"INT8", "FP16"}
    with pytest.raises(OptionError, match="strong typing cannot be had here"):
        make_plan(s, precision_rest="bf16", typing="strong")


def test_dla_is_used_with_gpu_fallback_where_there_is_one(world, source, make_plan, graph):
    s, options = source(graph(batch=2)), {"dla": 0, "precision_rest": "fp16", "typing": "auto"}
    options |= {"min_batch": 2, "opt_batch": 2, "max_batch": 2}
    with pytest.raises(OptionError, match="finds no DLA cores here, core 0 was asked for"):
        make_plan(s, **options)
    if world.eleven:
        return
    world.dla_cores = 2
    record = make_plan(s, **options)
    assert flags(world) == {"INT8", "FP16", "GPU_FALLBACK"}
    assert (world.config.default_device_type.name, world.config.DLA_core, record.typing) == ("DLA", 0, "weak")
    with pytest.raises(OptionError, match="DLA takes no free batch"):
        make_plan(source(name="free.onnx"), **options)


def test_a_timing_cache_is_kept_between_builds(world, source, make_plan, tmp_path):
    cache, s = tmp_path / "caches" / "orin.cache", source()
    assert make_plan(s, timing_cache=cache).timing_cache_sha256 == ""
    first = cache.read_bytes()
    assert make_plan(s, timing_cache=cache).timing_cache_sha256 == hashlib.sha256(first).hexdigest()
    assert world.config.cache.content == first
    world.cache_fits = False
    with pytest.raises(EngineError, match=r"timing cache does not fit this GPU.*--timing-cache"):
        make_plan(s, timing_cache=cache)
    assert cache.read_bytes() == first


FAILURES = [
    ("Could not find any implementation for node conv1. Insufficient workspace", {"workspace_mib": 1}, "give 4"),
    ("[defaultAllocator.cpp] Cuda Runtime (out of memory)", {"max_batch": 64}, r"out of device memory.*--max-batch 32"),
    ("Could not find any implementation for node conv1.", {}, "rctk inspect"),
]


@pytest.mark.parametrize(("said", "options", "advice"), FAILURES)
def test_a_build_that_fails_gives_the_reason_and_a_step_and_keeps_the_old_plan(
    world, source, make_plan, said, options, advice
):
    s = source()
    make_plan(s)
    before = s.path.with_suffix(".plan").read_bytes()
    world.build_error = said
    with pytest.raises(EngineError, match=advice) as caught:
        make_plan(s, **options)
    assert "TensorRT " + world.version in str(caught.value)
    assert "\n" not in str(caught.value)
    assert s.path.with_suffix(".plan").read_bytes() == before


def test_a_file_that_the_parser_refuses_is_told_with_node_and_reason(world, source, make_plan, graph):
    model = graph()
    zero = next(t for t in model.graph.initializer if t.name == "act1.z")
    zero.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(zero) + 3, "act1.z"))
    with pytest.raises(EngineError, match=r"QuantizeLinear 'act1\.q': .*symmetric.*\(1 more\).*rctk inspect"):
        make_plan(source(model))
    broken = source(name="broken.onnx")
    broken.path.write_bytes(b"no model")
    with pytest.raises(EngineError, match="cannot read broken"):
        make_plan(broken)
    broken.path.unlink()
    with pytest.raises(EngineError, match="no model file"):
        make_plan(broken)


def test_batches_that_the_file_or_tensorrt_excludes_are_refused(world, source, make_plan, graph):
    fixed = source(graph(batch=8), "fixed.onnx")
    with pytest.raises(OptionError, match="exactly 8, the profile asks for 1 to 32"):
        make_plan(fixed)
    make_plan(fixed, min_batch=8, opt_batch=8, max_batch=8)
    world.rejects_profile = True
    with pytest.raises(EngineError, match="rejects batches 1 to 32"):
        make_plan(source())


def test_a_free_dimension_that_no_profile_covers_is_refused(world, source, make_plan, graph):
    model = graph()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(EngineError, match=r"\[-1, 3, -1, 8\]: dimensions \[0, 2\] are free.*--input"):
        make_plan(source(model))


def test_several_inputs_or_outputs_are_refused(world, source, make_plan, graph):
    model = graph()
    model.graph.output.append(onnx.helper.make_tensor_value_info("act1", 1, None))
    with pytest.raises(EngineError, match="1 inputs and 2 outputs"):
        make_plan(source(model))


def test_an_int8_engine_that_mostly_runs_float_is_warned_of(world, source, make_plan):
    world.float_layers = {"conv1", "conv2"}
    record = make_plan(source())
    assert any("only 1 of 3 quantized layers run in int8" in text for text in record.warnings)
    causes = {place.name: place.cause for place in record.report.placed if place.arithmetic == "float"}
    assert causes["conv2"] == "quantized by 'act1.dq' and 'w2.dq', which did not fuse with it; it computes in fp32"


def test_a_layer_without_pairs_is_named_with_where_it_lost_them(world, source, make_plan, graph):
    model = graph()
    conv2 = next(node for node in model.graph.node if node.name == "conv2")
    conv2.input[0] = "act1"
    record = make_plan(source(model))
    (place,) = [place for place in record.report.placed if place.name == "conv2"]
    assert (place.arithmetic, place.cause) == ("float", "its input comes from 'act1' in float")


def test_a_plan_that_cannot_be_loaded_again_is_not_written(world, source, make_plan):
    world.load_error = "Unexpected internal error"
    s = source()
    with pytest.raises(EngineError, match="cannot load the plan that it has just built: Unexpected internal error"):
        make_plan(s)
    assert not s.path.with_suffix(".plan").exists()


def test_a_builder_or_runtime_that_does_not_start_gives_its_reason(world, source, make_plan):
    s = source()
    make_plan(s)
    world.starts = False
    with pytest.raises(EngineError, match="cannot start its builder: CUDA initialization failure with error: 35"):
        make_plan(s)
    with pytest.raises(EngineError, match="cannot start its runtime: CUDA initialization failure"):
        ENGINES.build("tensorrt").open(s)


def test_what_tensorrt_warns_of_is_kept_once(world, source, make_plan):
    world.warnings = ("CUDA lazy loading is not enabled.", "CUDA lazy loading is not enabled.")
    assert make_plan(source()).warnings == ("TensorRT warned: CUDA lazy loading is not enabled.",)


def test_no_gpu_stops_a_build_before_it_begins(world, source, make_plan):
    world.cuda.devices = 0
    with pytest.raises(EngineUnavailableError, match="GPU"):
        make_plan(source())


def test_a_disk_that_is_full_leaves_the_old_plan(world, source, make_plan, monkeypatch):
    s = source()
    make_plan(s)
    before = record_path(s.path.with_suffix(".plan")).read_text()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rctk_export.whole_file.os.fsync", full)
    with pytest.raises(EngineError, match=r"cannot write .*No space left on device; free some space"):
        make_plan(s, max_batch=2)
    assert record_path(s.path.with_suffix(".plan")).read_text() == before


BAD = [
    ({"min_batch": 0}, "1 <= min"),
    ({"min_batch": 4, "opt_batch": 2}, "--opt-batch"),
    ({"opt_batch": 64}, "--max-batch"),
    ({"optimization_level": 6}, "0 to 5"),
    ({"workspace_mib": -1}, "0 or more"),
    ({"precision_rest": "int4"}, "fp32, fp16, bf16"),
    ({"typing": "loose"}, "auto, strong, weak"),
    ({"hardware": "all"}, "ampere-plus"),
    ({"dla": 0}, "one batch size"),
    ({"dla": 0, "max_batch": 1}, "fp16"),
]


@pytest.mark.parametrize(("options", "reason"), BAD)
def test_options_that_cannot_be_are_refused(options, reason):
    with pytest.raises(OptionError, match=reason):
        BuildOptions(**options)


def test_plans_of_a_bundle_lie_beside_it(tmp_path, graph):
    with BundleWriter(tmp_path / "net") as writer:
        writer.add("int8", "tensorrt", graph().SerializeToString())
        writer.commit(name="net", input=SPEC, classes=(), model={}, calibration={})
    assert plan_path(tmp_path / "net" / "int8-tensorrt.onnx") == tmp_path / "net.plans" / "int8-tensorrt.plan"
    assert plan_path(tmp_path / "bare.onnx") == tmp_path / "bare.plan"
