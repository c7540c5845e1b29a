"""OpenVINO on the processor: float and int8 ONNX files, and OpenVINO's own ``.xml`` files. NumPy and openvino only.

What is not int8 in the file runs in float32: OpenVINO would else choose bfloat16 on processors that have it, and
quantize the inputs of linear layers whose weights alone are 8 or 4 bits wide. Which layers really run in int8,
:func:`runtime_layers` reads from the graph that OpenVINO compiled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from rctk_export.batching import End, checked, checked_logits, in_fixed_batches, one_input_one_output, pixels
from rctk_export.engine import Source
from rctk_export.input_spec import FloatNCHW, FloatNK
from rctk_kernels.errors import EngineError, EngineUnavailableError, OptionError

try:
    import openvino
    from openvino import frontend
except ImportError as error:
    raise EngineUnavailableError(
        "the openvino engine needs OpenVINO; install it with `pip install 'rctk[openvino]'`"
    ) from error

DEVICE = "CPU"
MAX_THREADS = 1024
KINDS = {"f32": "float32", "u8": "uint8"}
"""OpenVINO's words for the types that :class:`~rctk_export.batching.End` names."""
INT8 = frozenset({"i8", "u8"})
WEIGHTED = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})
"""Kinds of nodes in a compiled graph that multiply; grouped convolutions are called Convolution there too."""
_TAILS = ("/WithoutBiases", "/DequantizationMultiply")  # what OpenVINO's passes put behind the name of a node
_FAILURES = (
    *(RuntimeError, ValueError, TypeError),  # the readers raise classes of their own, which share no base
    *(value for name, value in vars(frontend).items() if name.endswith("Failure")),
)


@dataclass(frozen=True, kw_only=True)
class OpenVINO:
    """Runs an ONNX file with OpenVINO on the processor.

    Attributes:
        threads: Threads that share one operator; not more than the processors that this process may use.
        batch: Compile for exactly so many images, about 10 % faster at batch 1; 0 takes any number at a time.
        pinning: Bind threads to cores. Faster alone on a machine, slow where two engines are bound to the same core.
    """

    threads: int = 1
    batch: int = 0
    pinning: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= MAX_THREADS:
            raise OptionError(f"threads must be 1 to {MAX_THREADS}, got {self.threads}")
        if self.batch < 0:
            raise OptionError(f"batch must be 0 (any) or more, got {self.batch}")

    def open(self, source: Source) -> OpenVINOEngine:
        """Load ``source``; :class:`~rctk_kernels.errors.EngineError` where it cannot be had as asked."""
        return OpenVINOEngine(source, self)


@final
class OpenVINOEngine:
    """A compiled model; see :class:`rctk_export.engine.Engine`. One thread at a time may call ``predict``."""

    def __init__(self, source: Source, settings: OpenVINO) -> None:
        model = _read(source.path)
        self._spec = source.input
        inputs, outputs = ([_end(end) for end in ends] for ends in (model.inputs, model.outputs))
        self._input, _ = one_input_one_output(source.path.name, inputs, outputs, source.input)
        if settings.batch and self._input.batch not in {None, settings.batch}:
            raise EngineError(
                f"{source.path.name} takes {self._input.batch} images a run; leave batch={settings.batch} out"
            )
        self._batch = settings.batch or self._input.batch
        self._compiled: Any = _compiled(model, source, settings)
        self._request: Any = self._compiled.create_infer_request()

    def __enter__(self) -> OpenVINOEngine:
        return self

    def __exit__(self, *exc: object) -> None:
        self._request = self._compiled = None

    def predict(self, images: FloatNCHW) -> FloatNK:
        """Classify a batch; see :class:`rctk_export.engine.Engine`."""
        images, batch = checked(images, self._spec), self._batch
        if len(images) == 0:
            return self._run(np.zeros((batch or 1, *self._spec.shape), dtype=np.float32))[:0].copy()
        if batch is None or batch == len(images):
            return self._run(images)
        return in_fixed_batches(images, batch, self._run)

    def layers(self) -> tuple[RuntimeLayer, ...]:
        """Return the weighted layers of the compiled graph in the order in which they run."""
        return _layers(self._open())

    def _run(self, images: FloatNCHW) -> FloatNK:
        self._open()
        feed = pixels(images) if self._input.kind == "uint8" else images
        try:  # the request reads the images where they lie; checked_logits copies what it would overwrite
            found = self._request.infer({0: feed}, share_inputs=True, share_outputs=True)[0]
        except _FAILURES as error:
            raise EngineError(f"OpenVINO failed on a batch of {len(images)}: {_one_line(error)}") from error
        return checked_logits(found, len(images))

    def _open(self) -> Any:
        if self._compiled is None:
            raise EngineError("this engine is closed; open it again with `with settings.open(source) as engine:`")
        return self._compiled


class RuntimeLayer(NamedTuple):
    """A weighted layer as an engine runs it."""

    name: str
    """Of its node in the file."""
    precision: str
    """What its inputs are: ``u8`` or ``i8`` in integers, ``f32``, ``bf16``, ..."""
    kernel: str
    """The engine's own name of the code that runs."""

    @property
    def int8(self) -> bool:
        """Whether it computes on integers."""
        return self.precision in INT8


def runtime_layers(path: Path) -> tuple[RuntimeLayer, ...]:
    """Return how OpenVINO runs the weighted layers of a file on this machine, in order.

    Args:
        path: An ``.onnx`` or ``.xml`` file.
    """
    model = _read(path)
    try:
        return _layers(openvino.Core().compile_model(model, DEVICE, _properties(OpenVINO())))
    except _FAILURES as error:
        raise EngineError(f"OpenVINO cannot compile {path}: {_one_line(error)}") from error


def _layers(compiled: Any) -> tuple[RuntimeLayer, ...]:
    nodes = compiled.get_runtime_model().get_ordered_ops()
    facts = [{key: str(value.value) for key, value in node.get_rt_info().items()} for node in nodes]
    return tuple(
        RuntimeLayer(_plain(fact["originalLayersNames"]), fact["runtimePrecision"], fact["primitiveType"])
        for fact in facts
        if fact.get("layerType") in WEIGHTED
    )


def _plain(names: str) -> str:
    """Return the first of the nodes that a layer was made from, as the file calls it.

    Example:
        >>> _plain("conv1/WithoutBiases,Multiply_48832,conv1,relu.quantize")
        'conv1'
    """
    name = names.split(",", 1)[0]
    return min((name.partition(tail)[0] for tail in _TAILS), key=len)


def _read(path: Path) -> Any:
    """Read a model with the one reader that is meant for it: asked in turn, the others print what they think of it."""
    if not path.is_file():
        raise EngineError(f"no model file at {path}; give the path of an .onnx file or a bundle")
    try:
        if path.suffix == ".xml":
            return openvino.Core().read_model(path)
        reader = frontend.FrontEndManager().load_by_framework("onnx")
        return reader.convert(reader.load(str(path)))
    except _FAILURES as error:
        raise EngineError(f"OpenVINO cannot load {path}: {_one_line(error)}") from error


def _compiled(model: Any, source: Source, settings: OpenVINO) -> Any:
    try:
        if settings.batch:
            model.reshape([settings.batch, *source.input.shape])
        compiled = openvino.Core().compile_model(model, DEVICE, _properties(settings))
        threads = compiled.get_property("INFERENCE_NUM_THREADS")
    except _FAILURES as error:
        raise EngineError(f"OpenVINO cannot compile {source.path}: {_one_line(error)}") from error
    if threads != settings.threads:  # it takes fewer, without a word, where this process may use fewer processors
        raise EngineError(
            f"OpenVINO would run with threads={threads} though {settings.threads} were asked for, since this process "
            f"may use no more processors; give threads={threads}"
        )
    return compiled


def _properties(settings: OpenVINO) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": settings.threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "EXECUTION_MODE_HINT": "ACCURACY",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        "ENABLE_CPU_PINNING": settings.pinning,
    }


def _end(end: Any) -> End:
    shape, word = end.get_partial_shape(), end.get_element_type().get_type_name()
    sizes = None if shape.rank.is_dynamic else tuple(None if n.is_dynamic else int(n.get_length()) for n in shape)
    return End(end.get_any_name(), KINDS.get(word, word), sizes)


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if not line.startswith("Exception from")]
    return " ".join(" ".join(lines).split())[:400]
