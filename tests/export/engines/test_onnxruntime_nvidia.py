"""ONNX Runtime's NVIDIA providers, with stand-ins for what needs a GPU: options, batches, caches, refusals.

The stand-in session answers like a provider that started, and computes with ONNX Runtime on the CPU.
"""

from __future__ import annotations

import functools
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from rctk_export.batching import End
from rctk_export.engine import Source
from rctk_export.engines import ENGINES
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import EngineError, EngineUnavailableError, OptionError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from rctk_export.engines import cache  # noqa: E402
from rctk_export.engines import onnxruntime_provider as provider  # noqa: E402
from rctk_export.engines import onnxruntime_rtx as rtx  # noqa: E402
from rctk_export.engines import onnxruntime_tensorrt as tensorrt  # noqa: E402
from rctk_export.engines.cache import KEY, cache_folder, key  # noqa: E402
from rctk_export.engines.onnxruntime_wheel import ort  # noqa: E402

SPEC = InputSpec(channels=2, height=3, width=3)
ENTRY = End("images", "float32", (None, 2, 3, 3))
CPU, CUDA, TRT, RTX = "CPUExecutionProvider", provider.CUDA, provider.TENSORRT, provider.RTX
# the keys that the providers of ONNX Runtime 1.31.1 read: names in their libraries, and the page of the RTX plug-in
KNOWN = {
    CUDA: {
        *("device_id", "use_tf32", "cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy"),
        *("enable_cuda_graph", "prefer_nhwc", "cudnn_conv_use_max_workspace", "fuse_conv_bias", "enable_cudnn"),
    },
    TRT: {
        *("device_id", "trt_max_workspace_size", "trt_fp16_enable", "trt_bf16_enable", "trt_int8_enable"),
        *("trt_dla_enable", "trt_dla_core", "trt_engine_cache_enable", "trt_engine_cache_path"),
        *("trt_timing_cache_enable", "trt_timing_cache_path", "trt_profile_min_shapes", "trt_profile_opt_shapes"),
        *("trt_profile_max_shapes", "trt_cuda_graph_enable", "trt_builder_optimization_level", "trt_sparsity_enable"),
    },
    RTX: {
        *("device_id", "nv_max_workspace_size", "nv_profile_min_shapes", "nv_profile_opt_shapes"),
        *("nv_profile_max_shapes", "enable_cuda_graph", "nv_runtime_cache_path"),
    },
}
GPU = {"gpu": "Orin", "compute_capability": "8.7", "cuda_driver": "12.6", "system": "Linux aarch64"}


def classifier(path, batch="N", target="tensorrt", quantized=False):
    """Write 2x3x3 images -> Flatten -> the first 4 pixels as logits."""
    tail = [onnx.helper.make_node("Slice", ["flat", "start", "end", "axis"], ["logits"], name="slice")]
    nodes = [onnx.helper.make_node("Flatten", ["images"], ["flat"], name="flatten"), *tail]
    constants = {"start": [0], "end": [4], "axis": [1]}
    stored = [onnx.numpy_helper.from_array(np.array(value), name) for name, value in constants.items()]
    if quantized:
        stored += [onnx.numpy_helper.from_array(np.float32(1 / 64), "scale")]
        stored += [onnx.numpy_helper.from_array(np.int8(0), "zero")]
        nodes[1].input[0] = "plain"
        nodes[1:1] = [
            onnx.helper.make_node("QuantizeLinear", ["flat", "scale", "zero"], ["code"], name="q"),
            onnx.helper.make_node("DequantizeLinear", ["code", "scale", "zero"], ["plain"], name="dq"),
        ]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "classifier",
        [value("images", onnx.TensorProto.FLOAT, [batch, 2, 3, 3])],
        [value("logits", onnx.TensorProto.FLOAT, [batch, 4])],
        stored,
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), path)
    return Source(path=path, input=SPEC, role="int8" if quantized else "float", target=target)


def images(count):
    return np.random.default_rng(count).random((count, *SPEC.shape), dtype=np.float32)


class World:
    """What the stand-ins were asked for, and what they answer."""

    def __init__(self, patch):
        self.patch = patch
        self.session, self.options = ort.InferenceSession, ort.SessionOptions
        self.buffer_of = ort.OrtValue.ortvalue_from_shape_and_type
        self.orders, self.batches, self.buffers, self.registered = [], [], [], []
        self.on_cuda, self.gpu = set(), dict(GPU)

    def buffer(self, shape, kind, device, index):
        self.buffers.append((device, index))
        return self.buffer_of(shape, kind, "cpu", 0)

    def plug(self):
        """Let session options take the devices of a plug-in."""
        self.patch.setattr(ort, "SessionOptions", lambda: Options(self.options()))


class Options:
    """Session options that take devices of a plug-in."""

    def __init__(self, real):
        object.__setattr__(self, "real", real)
        object.__setattr__(self, "devices", [])

    def add_provider_for_devices(self, devices, given):
        self.devices.extend((device, given) for device in devices)

    def __getattr__(self, name):
        return getattr(self.real, name)

    def __setattr__(self, name, value):
        setattr(self.real, name, value)


class Session:
    """An ONNX Runtime whose providers start and run every node."""

    def __init__(self, world, model, options, providers=None, **how):
        assert how["enable_fallback"] == 0
        chosen = providers or [(device.ep_name, given) for device, given in options.devices]
        self.world, self.names = world, [name for name, _ in chosen]
        self.options = {name: dict(given) for name, given in chosen}
        inside = getattr(options, "real", options)
        plain = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if self.names != [CPU]:
            assert inside.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
            world.orders.append((chosen, inside.graph_optimization_level == plain))
        bare = world.options()
        bare.log_severity_level, bare.graph_optimization_level = 4, plain
        bare.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        self.real = world.session(model, bare, providers=[CPU], enable_fallback=0)

    def get_providers(self):
        return [*dict.fromkeys([*self.names, CPU])]

    def get_provider_options(self):
        return self.options

    def get_provider_graph_assignment_info(self):
        every = [node for part in self.real.get_provider_graph_assignment_info() for node in part.get_nodes()]
        lent = [node for node in every if node.name in self.world.on_cuda]
        pairs = ((self.names[0], [node for node in every if node not in lent]), (CUDA, lent))
        return [SimpleNamespace(ep_name=n, get_nodes=lambda nodes=nodes: nodes) for n, nodes in pairs if nodes]

    def run(self, outputs, feeds):
        self.world.batches.append(len(feeds["images"]))
        return self.real.run(outputs, feeds)

    def run_with_iobinding(self, binding):
        self.world.batches.append(binding.count)
        self.real.run_with_iobinding(binding.real)

    def io_binding(self):
        return Bound(self.real.io_binding())

    def __getattr__(self, name):
        return getattr(self.real, name)


class Bound:
    """A binding that knows how many images are bound."""

    def __init__(self, real):
        self.real, self.count = real, 0

    def bind_ortvalue_input(self, name, value):
        self.count = value.shape()[0]
        self.real.bind_ortvalue_input(name, value)

    def __getattr__(self, name):
        return getattr(self.real, name)


@pytest.fixture
def world(monkeypatch):
    world = World(monkeypatch)
    plugin = SimpleNamespace(get_ep_name=lambda: RTX, get_library_path=lambda: "/plugin.so")
    monkeypatch.setitem(sys.modules, rtx.PLUGIN, plugin)
    devices = world.registered
    for owner, attribute, value in (
        (ort, "get_available_providers", lambda: [TRT, CUDA, CPU]),
        (ort, "InferenceSession", functools.partial(Session, world)),
        (ort.OrtValue, "ortvalue_from_shape_and_type", staticmethod(world.buffer)),
        (tensorrt, "load_tensorrt", lambda: "10.13.3"),
        (tensorrt, "gpu_facts", lambda index: world.gpu),
        (rtx, "gpu_facts", lambda index: world.gpu),
        (provider, "load_failure", lambda name: ""),
        (ort, "register_execution_provider_library", lambda name, path: devices.append(name)),
        (ort, "get_ep_devices", lambda: [SimpleNamespace(ep_name=name) for name in devices]),
    ):
        monkeypatch.setattr(owner, attribute, value)
    return world


ENGINES_AND_BATCHES = [
    ("onnxruntime-cuda", (1, None)),
    ("onnxruntime-cuda:io_binding=true", (1, None)),
    ("onnxruntime-cuda:batch=4,cuda_graph=true", (4, 4)),
    ("onnxruntime-tensorrt:min_batch=2,opt_batch=4,max_batch=4", (2, 4)),
    ("onnxruntime-tensorrt:min_batch=4,opt_batch=4,max_batch=4,cuda_graph=true", (4, 4)),
    ("onnxruntime-rtx:max_batch=4", (1, 4)),
    ("onnxruntime-rtx:min_batch=3,opt_batch=3,max_batch=3,cuda_graph=true", (3, 3)),
]


@pytest.mark.parametrize("count", [0, 1, 4, 9])
@pytest.mark.parametrize(("text", "batches"), ENGINES_AND_BATCHES)
def test_any_number_of_images_within_the_batches_that_were_built(world, tmp_path, text, batches, count):
    if "rtx" in text:
        world.plug()
    with ENGINES.build(text).open(classifier(tmp_path / "m.onnx")) as engine:
        logits = engine.predict(images(count))
    assert np.array_equal(logits, images(count).reshape(count, 18)[:, :4])
    low, high = batches
    assert all(low <= size <= (high or size) for size in world.batches)
    assert all(place == ("cuda", 0) for place in world.buffers)
    assert bool(world.buffers) == ("cuda_graph" in text or "io_binding" in text)


@pytest.mark.parametrize("text", ["onnxruntime-tensorrt", "onnxruntime-rtx"])
def test_a_graph_of_fixed_batch_needs_no_profile(world, tmp_path, text):
    if "rtx" in text:
        world.plug()
    with ENGINES.build(text).open(classifier(tmp_path / "m.onnx", batch=4)) as engine:
        assert engine.predict(images(5)).shape == (5, 4)
    ((chosen, _),) = world.orders
    assert not any("profile" in name for name in chosen[0][1])
    assert world.batches == [4, 4]


def test_float_stays_float32_and_only_known_options_are_set(world, tmp_path):
    with ENGINES.build("onnxruntime-cuda").open(classifier(tmp_path / "m.onnx")) as engine:
        assert engine.placement() == {CUDA: 2}
        assert engine.notes == ()
        assert engine.optimized
    chosen, unoptimised = world.orders[0]
    assert chosen == [(CUDA, {"device_id": "0", "use_tf32": "0", "cudnn_conv_algo_search": "EXHAUSTIVE"})]
    assert not unoptimised


def test_every_setting_of_the_cuda_provider_becomes_its_option():
    text = "onnxruntime-cuda:device=1,batch=8,conv_search=heuristic,tf32=true,nhwc=true,memory_mib=512,cuda_graph=true"
    options = ENGINES.build(text).options()
    assert options == {
        "device_id": "1",
        "use_tf32": "1",
        "cudnn_conv_algo_search": "HEURISTIC",
        "gpu_mem_limit": "536870912",
        "arena_extend_strategy": "kSameAsRequested",
        "enable_cuda_graph": "1",
        "prefer_nhwc": "1",
    }
    assert set(options) <= KNOWN[CUDA]


def test_int8_files_say_that_cuda_computes_float_between_their_codes(world, tmp_path):
    with ENGINES.build("onnxruntime-cuda").open(classifier(tmp_path / "m.onnx", quantized=True)) as engine:
        assert "float32 between Q and DQ" in engine.notes[0]


@pytest.mark.parametrize("quantized", [False, True])
def test_tensorrt_takes_int8_from_the_file_and_no_half_precision_by_itself(world, tmp_path, quantized):
    with ENGINES.build("onnxruntime-tensorrt").open(classifier(tmp_path / "m.onnx", quantized=quantized)) as engine:
        assert not engine.optimized
        assert any("TensorFloat-32" in note for note in engine.notes)
    chosen, unoptimised = world.orders[0]
    expected = {
        "device_id": "0",
        "trt_profile_min_shapes": "images:1x2x3x3",
        "trt_profile_opt_shapes": "images:1x2x3x3",
        "trt_profile_max_shapes": "images:32x2x3x3",
    }
    assert chosen == [(TRT, {**expected, **({"trt_int8_enable": "1"} if quantized else {})})]
    assert unoptimised


def test_every_setting_of_the_tensorrt_provider_becomes_its_option():
    text = (
        "onnxruntime-tensorrt:device=1,precision_rest=fp16,min_batch=8,opt_batch=8,max_batch=8,workspace_mib=64,"
        "optimization_level=5,sparsity=true,dla=0,cuda_graph=true"
    )
    options = ENGINES.build(text).options(ENTRY, SPEC.shape, int8=True)
    shape = "images:8x2x3x3"
    assert options == {
        "device_id": "1",
        "trt_int8_enable": "1",
        "trt_fp16_enable": "1",
        "trt_sparsity_enable": "1",
        "trt_cuda_graph_enable": "1",
        "trt_dla_enable": "1",
        "trt_dla_core": "0",
        "trt_max_workspace_size": "67108864",
        "trt_builder_optimization_level": "5",
        **{f"trt_profile_{which}_shapes": shape for which in ("min", "opt", "max")},
    }
    assert set(options) <= KNOWN[TRT]
    half = ENGINES.build("onnxruntime-tensorrt:precision_rest=bf16").options(ENTRY, SPEC.shape, int8=False)
    assert half["trt_bf16_enable"] == "1"
    assert set(half) <= KNOWN[TRT]


def test_the_override_of_tf32_is_respected_and_dla_has_its_remark(world, tmp_path, monkeypatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    with ENGINES.build("onnxruntime-tensorrt:dla=0,precision_rest=fp16").open(
        classifier(tmp_path / "m.onnx")
    ) as engine:
        assert engine.notes == (tensorrt.DLA,)


def test_what_tensorrt_lacks_runs_in_cuda_only_where_that_is_asked_for(world, tmp_path):
    world.on_cuda = {"slice"}
    source = classifier(tmp_path / "m.onnx")
    with pytest.raises(EngineError, match=r"cannot run 1 of 2 nodes of m.onnx \(slice \(Slice\)\).*lacking=cuda"):
        ENGINES.build("onnxruntime-tensorrt").open(source)
    with ENGINES.build("onnxruntime-tensorrt:lacking=cuda").open(source) as engine:
        assert engine.placement() == {TRT: 1, CUDA: 1}
        assert "lacks 1 nodes, which CUDA runs: slice (Slice)" in engine.notes[0]
    assert world.orders[-1][0][1] == (CUDA, {"device_id": "0", "use_tf32": "0"})


@pytest.mark.parametrize("target", ["cpu", "cpu-mirror"])
@pytest.mark.parametrize("engine", ["onnxruntime-tensorrt", "onnxruntime-rtx"])
def test_files_with_uint8_activations_are_refused_before_anything_is_built(world, tmp_path, engine, target):
    with pytest.raises(EngineError, match=r"uint8 activations.*--target tensorrt"):
        ENGINES.build(engine).open(classifier(tmp_path / "m.onnx", target=target))
    assert world.orders == []


@pytest.mark.parametrize("text", ["onnxruntime-cuda", "onnxruntime-tensorrt", "onnxruntime-rtx"])
def test_a_file_that_is_no_model_gives_one_line(world, tmp_path, text):
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(EngineError, match=r"m\.onnx") as caught:
        ENGINES.build(text).open(Source(path=tmp_path / "m.onnx", input=SPEC))
    assert "\n" not in str(caught.value)


def test_the_plug_in_is_registered_once_and_asked_by_its_device(world, tmp_path):
    world.plug()
    source = classifier(tmp_path / "m.onnx")
    text = f"onnxruntime-rtx:workspace_mib=1,cache={tmp_path / 'kept'}"
    for _ in range(2):
        ENGINES.build(text).open(source)
    assert world.registered == [RTX]
    ((name, options),), _ = world.orders[0]
    assert name == RTX
    assert set(options) <= KNOWN[RTX]
    assert options["nv_max_workspace_size"] == "1048576"
    assert options["nv_runtime_cache_path"].startswith(str(tmp_path / "kept" / "m-"))
    with pytest.raises(EngineUnavailableError, match="lists 1 GPUs and no number 3"):
        ENGINES.build("onnxruntime-rtx:device=3").open(source)


def test_the_plug_in_that_is_missing_or_too_new_is_named(world, tmp_path, monkeypatch):
    source = classifier(tmp_path / "m.onnx")

    def fail(name, path):
        raise RuntimeError("cannot\nload")

    monkeypatch.setattr(ort, "register_execution_provider_library", fail)
    with pytest.raises(EngineUnavailableError, match=r"did not start: cannot load; run `pip install 'rctk\[ort-rtx\]'"):
        ENGINES.build("onnxruntime-rtx").open(source)
    monkeypatch.setitem(sys.modules, rtx.PLUGIN, None)
    with pytest.raises(EngineUnavailableError, match=r"plug-in that is not installed.*rctk\[ort-rtx\]"):
        ENGINES.build("onnxruntime-rtx").open(source)
    monkeypatch.delattr(ort, "register_execution_provider_library")
    with pytest.raises(EngineUnavailableError, match=r"takes no plug-in providers.*1\.24"):
        ENGINES.build("onnxruntime-rtx").open(source)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("onnxruntime-cuda:device=-1", "0 or more"),
        ("onnxruntime-cuda:cuda_graph=true", "add batch=N"),
        ("onnxruntime-cuda:conv_search=luck", "unknown"),
        ("onnxruntime-tensorrt:min_batch=8,max_batch=4", "1 <= min_batch <= opt_batch <= max_batch"),
        ("onnxruntime-tensorrt:cuda_graph=true", "one batch size, got 1 to 32"),
        ("onnxruntime-tensorrt:optimization_level=6", "0 to 5"),
        ("onnxruntime-tensorrt:precision_rest=int4", "unknown"),
        ("onnxruntime-tensorrt:lacking=cpu", "unknown"),
        ("onnxruntime-tensorrt:workspace_mib=-1", "0 or more"),
        ("onnxruntime-rtx:max_batch=0", "max_batch"),
        ("onnxruntime-rtx:device=-1", "0 or more"),
        ("onnxruntime-rtx:cuda_graph=true", "one batch size"),
    ],
)
def test_impossible_settings_are_refused(text, words):
    with pytest.raises(OptionError, match=words):
        ENGINES.build(text)


def test_dla_needs_a_precision_that_it_has():
    with pytest.raises(OptionError, match="int8 and fp16 only"):
        ENGINES.build("onnxruntime-tensorrt:dla=0").options(ENTRY, SPEC.shape, int8=False)


FACTS = {**GPU, "tensorrt": "10.13.3", "onnxruntime": "1.31.1", "file": "ab", "options": {"trt_fp16_enable": "1"}}


@pytest.mark.parametrize("changed", [*GPU, "tensorrt", "onnxruntime", "file"])
def test_whatever_changes_the_key_changes_too(changed):
    assert key(FACTS) != key({**FACTS, changed: "other"})


def test_engines_of_another_file_option_version_or_gpu_are_never_found(world, tmp_path, monkeypatch):
    source, kept = classifier(tmp_path / "m.onnx"), tmp_path / "cache"

    def folders(text=""):
        ENGINES.build(f"onnxruntime-tensorrt:cache={kept}{text}").open(source)
        options = world.orders[-1][0][0][1]
        assert set(options) <= KNOWN[TRT]
        assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "1"
        return options["trt_engine_cache_path"], options["trt_timing_cache_path"]

    first, timing = folders()
    assert folders() == (first, timing)
    assert folders(",precision_rest=fp16") != (first, timing)
    assert folders(",precision_rest=fp16")[1] == timing  # kernels' times do not depend on the file
    source = classifier(tmp_path / "m.onnx", quantized=True)
    assert folders()[0] != first
    source = classifier(tmp_path / "m.onnx")
    assert folders() == (first, timing)
    world.gpu["gpu"] = "Thor"
    engines, times = folders()
    assert engines != first
    assert times != timing
    world.gpu["gpu"] = "Orin"
    monkeypatch.setattr(tensorrt, "load_tensorrt", lambda: "10.14.0")
    assert folders()[0] != first
    assert json.loads((kept / first.rpartition("/")[2] / KEY).read_text())["gpu"] == "Orin"


def test_a_cache_that_is_not_what_its_name_says_is_refused(tmp_path):
    folder = cache_folder(tmp_path, "m", FACTS)
    assert cache_folder(tmp_path, "m", FACTS) == folder
    (folder / KEY).write_text("{}")
    with pytest.raises(EngineError, match="describes other engines"):
        cache_folder(tmp_path, "m", FACTS)
    (folder / KEY).unlink()
    (folder / "a.engine").touch()
    with pytest.raises(EngineError, match="holds engines and no key"):
        cache_folder(tmp_path, "m", FACTS)
    (tmp_path / "file").touch()
    with pytest.raises(EngineError, match="give another with cache="):
        cache_folder(tmp_path / "file", "m", FACTS)


def test_there_is_no_key_without_a_gpu(monkeypatch):
    cuda = SimpleNamespace(
        device_count=lambda: 1,
        device=lambda index: SimpleNamespace(name="Orin", compute_capability="8.7"),
        versions=lambda: ("12.6", "12.6"),
    )
    monkeypatch.setattr(cache, "load_cuda", lambda: cuda)
    monkeypatch.setattr(cache, "system", lambda: "Linux aarch64")
    assert cache.gpu_facts(0) == GPU
    with pytest.raises(EngineUnavailableError, match="no GPU 1, this machine has 1"):
        cache.gpu_facts(1)
