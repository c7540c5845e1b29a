"""A TensorRT and a CUDA runtime that behave like the real ones where rctk can notice, one TensorRT per generation.

Names that a generation lacks raise AttributeError, failed calls return None or False and log the reason, enum values
move, a logger needs its base ``__init__``, and work on a stream is done when somebody waits for it. Plans hold the ONNX
file, which ONNX Runtime computes; device memory is host memory.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
import types
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from google.protobuf.message import DecodeError

from rctk_export.bundle import file_sha256
from rctk_export.engine import Source
from rctk_export.input_spec import InputSpec
from rctk_export.tensorrt.options import BuildOptions

LOADED = [f"rctk_export.tensorrt.{name}" for name in ("api", "build", "expected", "here", "make", "session")]
"""What imports TensorRT."""
GENERATIONS = ("10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0.106")


class Call:
    """A foreign function: it can be called, and its result type set."""

    def __init__(self, function):
        self.function, self.restype = function, None

    def __call__(self, *arguments):
        return self.function(*arguments)


class Cudart:
    """Host memory that plays a device's; whatever is enqueued waits until the stream is synchronized."""

    def __init__(self):
        self.devices, self.current, self.memory_bytes = 1, 0, 1 << 30
        self.capability, self.name, self.driver, self.runtime = (8, 7), b"Orin", 12060, 12060
        self.fail, self.live, self.calls = {}, {}, []
        self.queues, self.recording, self.graphs, self.handle = {}, None, {}, 1000
        for name in [name for name in dir(type(self)) if name.startswith("_cuda")]:
            setattr(self, name[1:], Call(self._watched(name[1:], getattr(self, name))))

    def _watched(self, name, function):
        def call(*arguments):
            self.calls.append(name)
            return self.fail[name] if name in self.fail else function(*arguments) or 0

        return call

    def _new(self, ref, value):
        self.handle += 1
        self.live[self.handle] = value
        ref._obj.value = self.handle

    def _drop(self, handle):
        del self.live[handle.value]

    def enqueue(self, stream, work):
        assert stream != 0, "the default stream synchronizes the whole device"
        (self.recording if self.recording is not None else self.queues[stream]).append(work)

    def _cudaGetErrorName(self, code):
        return {2: b"cudaErrorMemoryAllocation", 35: b"cudaErrorInsufficientDriver"}.get(code, b"cudaErrorUnknown")

    def _cudaGetErrorString(self, code):
        return b"out of memory" if code == 2 else b"as the driver says"

    def _cudaGetLastError(self):
        return 0

    def _cudaGetDeviceCount(self, count):
        count._obj.value = self.devices
        return 0 if self.devices else 100

    def _cudaDriverGetVersion(self, version):
        version._obj.value = self.driver

    def _cudaRuntimeGetVersion(self, version):
        version._obj.value = self.runtime

    def _cudaGetDevice(self, device):
        device._obj.value = self.current

    def _cudaSetDevice(self, device):
        self.current = device.value

    def _cudaGetDeviceProperties(self, properties, device):
        properties[0 : len(self.name)] = self.name
        properties[256:272] = bytes(range(16))

    def _cudaDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = {75: self.capability[0], 76: self.capability[1], 18: 1}[attribute.value]

    def _cudaMemGetInfo(self, free, total):
        used = sum(len(value) for value in self.live.values() if isinstance(value, ctypes.Array))
        free._obj.value, total._obj.value = self.memory_bytes - used, self.memory_bytes

    def _allocate(self, address, count):
        free = ctypes.c_size_t()
        self._cudaMemGetInfo(SimpleNamespace(_obj=free), SimpleNamespace(_obj=ctypes.c_size_t()))
        if count.value > free.value:
            return 2
        block = ctypes.create_string_buffer(count.value)
        self.live[ctypes.addressof(block)] = block
        address._obj.value = ctypes.addressof(block)
        return 0

    def _cudaMalloc(self, address, count):
        return self._allocate(address, count)

    def _cudaHostAlloc(self, address, count, flags):
        return self._allocate(address, count)

    def _cudaFree(self, address):
        self._drop(address)

    def _cudaFreeHost(self, address):
        self._drop(address)

    def _cudaMemcpyAsync(self, to, source, count, kind, stream):
        self.enqueue(stream.value, lambda: ctypes.memmove(to, source, count.value))

    def _cudaStreamCreateWithFlags(self, stream, flags):
        assert flags.value == 1  # non-blocking
        self._new(stream, "stream")
        self.queues[stream._obj.value] = []

    def _cudaStreamSynchronize(self, stream):
        while self.queues[stream.value]:
            self.queues[stream.value].pop(0)()

    def _cudaStreamDestroy(self, stream):
        self._drop(stream)

    def _cudaStreamBeginCapture(self, stream, mode):
        self.recording = []

    def _cudaStreamEndCapture(self, stream, graph):
        self._new(graph, self.recording)
        self.recording = None

    def _cudaGraphInstantiateWithFlags(self, ref, graph, flags):
        work = self.live[graph.value]
        self._new(ref, work)
        self.graphs[ref._obj.value] = work

    def _cudaGraphDestroy(self, graph):
        self._drop(graph)

    def _cudaGraphLaunch(self, graph, stream):
        self.queues[stream.value].extend(self.graphs[graph.value])

    def _cudaGraphExecDestroy(self, graph):
        self._drop(graph)

    def _cudaEventCreate(self, event):
        self._new(event, [])

    def _cudaEventRecord(self, event, stream):
        self.enqueue(stream.value, lambda: None)

    def _cudaEventSynchronize(self, event):
        return 0

    def _cudaEventElapsedTime(self, value, start, end):
        value._obj.value = 1.5

    def _cudaEventDestroy(self, event):
        self._drop(event)


def enum(name, *members, **values):
    """A pybind enum: numbered members, and AttributeError for others."""

    class Member:
        def __init__(self, title, value):
            self.name, self.value = title, value

        def __int__(self):
            return self.value

        def __str__(self):
            return f"{name}.{self.name}"

    numbered = {title: i for i, title in enumerate(members)} | values
    return SimpleNamespace(**{title: Member(title, value) for title, value in numbered.items()})


LAYER_TYPES = {
    "Conv": "CONVOLUTION",
    "ConvTranspose": "DECONVOLUTION",
    "QuantizeLinear": "QUANTIZE",
    "DequantizeLinear": "DEQUANTIZE",
    "MaxPool": "POOLING",
    "GlobalAveragePool": "REDUCE",
    "Identity": "IDENTITY",
    "Slice": "SLICE",
    **dict.fromkeys(("Gemm", "MatMul"), "MATRIX_MULTIPLY"),
    **dict.fromkeys(("Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze"), "SHUFFLE"),
}


class World:
    """What tests change about TensorRT and the machine, and what it saw."""

    def __init__(self, version):
        self.version, self.eleven = version, version.startswith("11")
        self.cuda = Cudart()
        self.build_error = self.load_error = ""
        self.dla_cores, self.context_fails, self.deserialized = 0, False, 0
        self.float_layers, self.inspector, self.rejects_profile, self.refuses = set(), None, False, set()
        self.config = self.network = None
        self.cache_fits = self.starts = True
        self.warnings = ()

    def module(self):
        """Return this generation as a module."""
        world, trt, ten = self, types.ModuleType("tensorrt"), not self.eleven
        trt.__version__ = self.version
        trt.__spec__ = ModuleSpec("tensorrt", None)  # torch looks for it
        precisions = ("FP16", "INT8") if ten else ()
        rest = ("GPU_FALLBACK", "REFIT", "TF32", "SPARSE_WEIGHTS", "VERSION_COMPATIBLE")
        trt.BuilderFlag = enum("BuilderFlag", *precisions, "DEBUG", *rest, *(("BF16", "FP8") if ten else ()))
        strong = {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1} if ten else {"STRONGLY_TYPED": 0}
        trt.NetworkDefinitionCreationFlag = enum("NetworkDefinitionCreationFlag", **strong)
        kinds = sorted({*LAYER_TYPES.values(), "ELEMENTWISE", "POOLING", "CONSTANT"})
        trt.LayerType = enum("LayerType", *kinds)
        trt.DataType = enum("DataType", "FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8", "FP8", "BF16", "INT64")
        trt.TensorIOMode = enum("TensorIOMode", "NONE", "INPUT", "OUTPUT")
        trt.MemoryPoolType = enum("MemoryPoolType", "WORKSPACE")
        trt.ProfilingVerbosity = enum("ProfilingVerbosity", "LAYER_NAMES_ONLY", "NONE", "DETAILED")
        trt.LayerInformationFormat = enum("LayerInformationFormat", "ONELINE", "JSON")
        trt.DeviceType = enum("DeviceType", "GPU", "DLA")
        same = () if self.version.startswith("10.3") else ("SAME_COMPUTE_CAPABILITY",)
        trt.HardwareCompatibilityLevel = enum("HardwareCompatibilityLevel", "NONE", "AMPERE_PLUS", *same)
        trt.Dims = tuple

        class ILogger:
            INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = (object() for _ in range(5))
            Severity = object

            def __init__(self):
                self.started = True

        trt.ILogger = ILogger

        def starting(kind):
            def start(logger):
                if not world.starts:
                    tell(logger, "CUDA initialization failure with error: 35")
                    raise TypeError("pybind11::init(): factory function returned nullptr")
                return kind(world, trt, logger)

            return start

        trt.Builder, trt.Runtime = starting(Builder), starting(Runtime)
        trt.OnnxParser = Parser
        return trt


def tell(logger, text):
    assert logger.started, "TypeError: ILogger.__init__() must be called when overriding __init__"
    logger.log(type(logger).ERROR, text)


class Builder:
    def __init__(self, world, trt, logger):
        self.world, self.trt, self.logger = world, trt, logger
        self.num_DLA_cores = world.dla_cores

    def create_network(self, flags=0):
        bit = self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED.value
        assert flags in {0, 1 << bit}, "another flag has this number in this generation"
        strong = self.world.eleven or bool(flags)
        self.world.network = SimpleNamespace(trt=self.trt, strong=strong, num_layers=0, num_inputs=0, num_outputs=0)
        return self.world.network

    def create_builder_config(self):
        self.world.config = Config(self.world)
        return self.world.config

    def create_optimization_profile(self):
        return Profile()

    def build_serialized_network(self, network, config):
        flags = {member.name for member in config.flags}
        qdq = any(layer.type.name in {"QUANTIZE", "DEQUANTIZE"} for layer in network.layers)
        reason = self.world.build_error
        for text in self.world.warnings:
            self.logger.log(type(self.logger).WARNING, text)
        if network.strong and flags & {"INT8", "FP16", "BF16"}:
            reason = "precision flags are not allowed in a strongly typed network"
        if not network.strong and qdq and "INT8" not in flags:
            reason = (
                "Int8 precision has been set for a layer or layer output, but int8 is not configured in the builder"
            )
        if -1 in network.shape and not config.profiles:
            reason = "Network has dynamic or shape inputs, but no optimization profile has been defined"
        if reason:
            tell(self.logger, reason)
            return None
        head = {
            "version": self.world.version,
            "compatible": "VERSION_COMPATIBLE" in flags,
            "profile": config.profiles[0].shapes if config.profiles else None,
            "detailed": config.profiling_verbosity is self.trt.ProfilingVerbosity.DETAILED,
        }
        text = json.dumps(head).encode()
        return len(text).to_bytes(4, "big") + text + network.content


class Config:
    def __init__(self, world):
        self.world, self.flags, self.profiles, self.pools = world, set(), [], {}
        self.profiling_verbosity = self.hardware_compatibility_level = self.default_device_type = None
        self.builder_optimization_level, self.DLA_core, self.cache = 3, -1, b""

    def set_flag(self, member):
        self.flags.add(member)

    def clear_flag(self, member):
        self.flags.discard(member)
        self.cleared = member.name

    def set_memory_pool_limit(self, pool, count):
        self.pools[pool.name] = count

    def add_optimization_profile(self, profile):
        if self.world.rejects_profile:
            return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, content):
        return SimpleNamespace(content=bytes(content), serialize=lambda: b"cache of " + self.world.version.encode())

    def set_timing_cache(self, cache, ignore_mismatch):
        self.cache = cache
        return self.world.cache_fits

    def get_timing_cache(self):
        return self.cache


class Profile:
    def __init__(self):
        self.shapes = None

    def set_shape(self, name, low, tuned, high):
        self.shapes = [list(low), list(tuned), list(high)]

    def __bool__(self):
        return self.shapes is not None


class Layer:
    def __init__(self, trt, node, stored):
        self.name = node.name or node.output[0]
        self.type = getattr(trt.LayerType, LAYER_TYPES.get(node.op_type, "ELEMENTWISE"))
        self.metadata = f"[ONNX Layer: {self.name}]"
        self._inputs = [name for name in node.input if name and name not in stored]
        self._outputs = list(node.output)
        self.num_inputs, self.num_outputs = len(self._inputs), len(self._outputs)

    def get_input(self, index):
        return SimpleNamespace(name=self._inputs[index])

    def get_output(self, index):
        return SimpleNamespace(name=self._outputs[index])


class Parser:
    def __init__(self, network, logger):
        self.network, self.logger, self.errors = network, logger, []

    @property
    def num_errors(self):
        return len(self.errors)

    def get_error(self, index):
        return self.errors[index]

    def _error(self, node, text):
        named = {"node_operator": node.op_type, "node_name": node.name, "desc": text}
        self.errors.append(SimpleNamespace(**{key: (lambda value=value: value) for key, value in named.items()}))

    def parse(self, content):
        try:
            model = onnx.load_from_string(content)
        except DecodeError:
            self._error(SimpleNamespace(op_type="", name=""), "Failed to parse ONNX model from memory")
            return False
        stored = {t.name: t for t in model.graph.initializer}
        for node in model.graph.node:
            zero = stored.get(node.input[2]) if node.op_type.endswith("antizeLinear") and len(node.input) > 2 else None
            if zero is not None and zero.data_type == onnx.TensorProto.INT32:
                self._error(node, "only activation types allowed as input to this layer")
            if zero is not None and onnx.numpy_helper.to_array(zero).any():
                self._error(node, "TensorRT only supports symmetric quantization; zero point must be all zeros")
        n = self.network
        n.content, n.layers = bytes(content), [Layer(n.trt, node, stored) for node in model.graph.node]
        n.num_layers, n.get_layer = len(n.layers), n.layers.__getitem__
        entries = [end for end in model.graph.input if end.name not in stored]
        n.num_inputs, n.num_outputs = len(entries), len(model.graph.output)
        n.shape = [d.dim_value if d.HasField("dim_value") else -1 for d in entries[0].type.tensor_type.shape.dim]
        n.get_input = lambda i: SimpleNamespace(name=entries[i].name, shape=n.shape)
        return not self.errors


class Runtime:
    def __init__(self, world, trt, logger):
        self.world, self.trt, self.logger, self.engine_host_code_allowed = world, trt, logger, False

    def deserialize_cuda_engine(self, plan):
        self.world.deserialized += 1
        size = int.from_bytes(plan[:4], "big")
        head = json.loads(plan[4 : 4 + size])
        reason = self.world.load_error
        if head["compatible"] and not self.engine_host_code_allowed:
            reason = "Engine host code is not allowed"
        if reason:
            tell(self.logger, reason)
            return None
        return Engine(self.world, self.trt, head, plan[4 + size :], self.logger)


class Engine:
    def __init__(self, world, trt, head, content, logger):
        self.world, self.trt, self.head, self.logger = world, trt, head, logger
        self.model = onnx.load_from_string(content)
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.ends = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.num_io_tensors, self.device_memory_size_v2 = len(self.ends), 1 << 20

    def get_tensor_name(self, index):
        return self.ends[index].name

    def _end(self, name):
        return next(end for end in self.ends if end.name == name)

    def get_tensor_mode(self, name):
        inputs = {end.name for end in self.session.get_inputs()}
        return self.trt.TensorIOMode.INPUT if name in inputs else self.trt.TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name):
        kinds = {"tensor(float)": "FLOAT", "tensor(uint8)": "UINT8", "tensor(int64)": "INT64"}
        return getattr(self.trt.DataType, kinds[self._end(name).type])

    def get_tensor_shape(self, name):
        return tuple(size if isinstance(size, int) else -1 for size in self._end(name).shape)

    def get_tensor_profile_shape(self, name, profile):
        return self.head["profile"]

    def create_execution_context(self):
        if self.world.context_fails:
            tell(self.logger, "[resizingAllocator.cpp::allocate::74] Error Code 1: Cuda Runtime (out of memory)")
            return None
        return Context(self)

    def create_engine_inspector(self):
        return SimpleNamespace(get_engine_information=lambda kind: self.world.inspector or self._layers())

    def _layers(self):
        if not self.head["detailed"]:
            return json.dumps({"Layers": [node.name for node in self.model.graph.node], "Bindings": []})
        makers = {name: node for node in self.model.graph.node for name in node.output}

        def from_dq(name):
            while name in makers and makers[name].op_type in {"Flatten", "Reshape", "MaxPool", "Transpose"}:
                name = makers[name].input[0]
            return name in makers and makers[name].op_type == "DequantizeLinear"

        def tensor(int8):
            if self.world.eleven:
                return {"Name": "t", "Format": "kLINEAR", "DataType": "Int8" if int8 else "Float"}
            text = "Thirty-two wide channel vectorized row major Int8 format" if int8 else "Row major linear FP32"
            return {"Name": "t", "Location": "Device", "Dimensions": [1, 8], "Format/Datatype": text}

        layers = [{"Name": "Reformatting CopyNode for Input", "LayerType": "Reformat", "Inputs": [tensor(int8=False)]}]
        for node in self.model.graph.node:
            if node.op_type in {"Conv", "Gemm", "MatMul"}:
                int8 = all(map(from_dq, node.input[:2])) and node.name not in self.world.float_layers
                kind, tactic = "CaskConvolution", "sm80_xmma_fprop_implicit_gemm" + ("_i8i8" if int8 else "_f32f32")
                fields = {"Name": f"{node.name} + relu", "LayerType": kind, "TacticName": tactic}
                layers.append({**fields, "Inputs": [tensor(int8)], "Outputs": [tensor(int8)]})
        key = "I/O Tensors" if self.world.eleven else "Bindings"
        return json.dumps({"Layers": layers, key: []})


class Context:
    def __init__(self, engine):
        self.engine, self.world, self.shape, self.addresses = engine, engine.world, None, {}

    def set_input_shape(self, name, shape):
        profile = self.engine.head["profile"]
        fixed = self.engine.get_tensor_shape(name)
        low, high = (profile[0][0], profile[2][0]) if profile else (fixed[0], fixed[0])
        if not low <= shape[0] <= high or "set_input_shape" in self.world.refuses:
            tell(self.engine.logger, f"Static dimension mismatch while setting input shape {shape}")
            return False
        self.shape = shape
        return True

    def infer_shapes(self):
        return ["images"] if "infer_shapes" in self.world.refuses else []

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return "set_tensor_address" not in self.world.refuses

    def execute_async_v3(self, stream):
        if "execute_async_v3" in self.world.refuses:
            tell(self.engine.logger, "CUDA out of memory in enqueueV3")
            return False
        entry, out = self.engine.ends
        shape = self.shape

        def work():
            kind = np.uint8 if "uint8" in entry.type else np.float32
            feed = _over(self.addresses[entry.name], shape, kind)
            (logits,) = self.engine.session.run(None, {entry.name: feed.copy()})
            _over(self.addresses[out.name], logits.shape, np.float32)[...] = logits

        self.world.cuda.enqueue(stream, work)
        return True


def _over(address, shape, kind):
    count = int(np.prod(shape)) * np.dtype(kind).itemsize
    return np.frombuffer((ctypes.c_uint8 * count).from_address(address), dtype=kind).reshape(shape)


@pytest.fixture
def install(monkeypatch):
    """Put a generation of TensorRT and a CUDA runtime in place; returns the world that tests may change."""
    real = ctypes.CDLL

    def put(version):
        world = World(version)
        for name in LOADED:
            monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setitem(sys.modules, "tensorrt", world.module())
        monkeypatch.setattr(
            ctypes,
            "CDLL",
            lambda name, *rest, **more: world.cuda if "cudart" in str(name) else real(name, *rest, **more),
        )
        return world

    yield put
    for name in LOADED:
        sys.modules.pop(name, None)


@pytest.fixture(params=GENERATIONS)
def world(request, install):
    return install(request.param)


SPEC = InputSpec(channels=3, height=8, width=8)


def residual(batch="batch", *, kind=onnx.TensorProto.FLOAT):
    """Images -> Conv, Relu -> Conv + skip -> pool -> Gemm, placed as TensorRT wants it; weights float with Q and DQ."""
    rng, make, arrays, nodes = np.random.default_rng(0), onnx.helper.make_node, {}, []

    def pair(name, scale):
        arrays.update({f"{name}.s": np.float32(scale), f"{name}.z": np.int8(0)})
        ends = [f"{name}.s", f"{name}.z"]
        nodes.append(make("QuantizeLinear", [name, *ends], [f"{name}.q"], name=f"{name}.q"))
        nodes.append(make("DequantizeLinear", [f"{name}.q", *ends], [f"{name}.dq"], name=f"{name}.dq"))
        return f"{name}.dq"

    def weight(name, *shape):
        values = rng.normal(size=shape).astype(np.float32) * np.float32(0.3)
        scale = np.abs(values).reshape(len(values), -1).max(axis=1) / np.float32(127)
        arrays.update({name: values, f"{name}.s": scale, f"{name}.z": np.zeros(len(values), np.int8)})
        ends = [f"{name}.s", f"{name}.z"]
        nodes.append(make("QuantizeLinear", [name, *ends], [f"{name}.q"], name=f"{name}.q", axis=0))
        nodes.append(make("DequantizeLinear", [f"{name}.q", *ends], [f"{name}.dq"], name=f"{name}.dq", axis=0))
        return f"{name}.dq"

    def op(kind, inputs, out, **attributes):
        nodes.append(make(kind, inputs, [out], name=out, **attributes))
        return out

    arrays.update({name: rng.normal(size=4).astype(np.float32) for name in ("b1", "b2")})
    arrays.update(mean=np.float32(0.5), std=np.float32(0.25))
    start = "images"
    if kind == onnx.TensorProto.UINT8:
        arrays["pixel"] = np.float32(1 / 255)
        start = op("Mul", [op("Cast", ["images"], "real", to=onnx.TensorProto.FLOAT), "pixel"], "unit")
    x = op("Div", [op("Sub", [start, "mean"], "centred"), "std"], "normal")
    same = {"pads": [1, 1, 1, 1]}
    a = op("Relu", [op("Conv", [pair(x, 2 / 127), weight("w1", 4, 3, 3, 3), "b1"], "conv1", **same)], "act1")
    skip = pair(a, 0.03)
    c = op("Conv", [skip, weight("w2", 4, 4, 3, 3), "b2"], "conv2", **same)
    a = op("Relu", [op("Add", [c, skip], "sum")], "act2")
    f = op("Flatten", [op("GlobalAveragePool", [pair(a, 0.05)], "pool")], "flat")
    op("Gemm", [pair(f, 0.03), weight("w3", 5, 4)], "logits", transB=1)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "residual",
        [value("images", kind, [batch, 3, 8, 8])],
        [value("logits", onnx.TensorProto.FLOAT, [batch, 5])],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture
def graph():
    """Return the builder of the model that these tests deploy."""
    return residual


@pytest.fixture
def source(tmp_path):
    """Write a model as a file that an engine can open."""

    def write(model=None, name="int8-tensorrt.onnx"):
        path = tmp_path / name
        onnx.save(residual() if model is None else model, path)
        return Source(path=path, input=SPEC, role="int8", target="tensorrt", sha256=file_sha256(path))

    return write


@pytest.fixture
def make_plan(tmp_path):
    """Build the plan of a source; options are those of a build."""

    def make(source, **options):
        module = importlib.import_module("rctk_export.tensorrt.make")
        cache = options.pop("timing_cache", None)
        out = options.pop("out", source.path.with_suffix(".plan"))
        return module.make_plan(source, out, BuildOptions(**options), cache)

    return make
