"""ONNX Runtime: the engine that most x86 and ARM products ship.

Needs NumPy and onnxruntime, nothing else. Threads, optimiser and execution provider are what the settings say; a
provider that this build or machine lacks is refused, never replaced.

A graph whose batch dimension is a number, say 8, gets exactly 8 images per run: a batch is cut into chunks, the last
one filled up by repeating images, and the surplus answers are dropped. Otherwise a batch goes in whole: memory grows
with it, so the caller decides how large it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final, get_args

import numpy as np
import numpy.typing as npt

from rctk_export.batching import End, checked, checked_logits, in_fixed_batches, one_input_one_output, pixels
from rctk_export.cpu import saturates_u8s8
from rctk_export.engine import Source
from rctk_export.input_spec import FloatNCHW, FloatNK
from rctk_kernels.errors import EngineError, EngineUnavailableError, OptionError

try:
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as errors
except ImportError as error:
    raise EngineUnavailableError(
        "the onnxruntime engine needs ONNX Runtime; install it with `pip install 'rctk[ort]'`"
    ) from error

ProviderName = Literal["cpu", "cuda", "tensorrt", "openvino", "dml", "coreml", "migraphx", "qnn", "xnnpack", "acl"]
_TITLES = (
    *("CPU", "CUDA", "Tensorrt", "OpenVINO", "Dml"),
    *("CoreML", "MIGraphX", "QNN", "Xnnpack", "ACL"),
)
PROVIDERS: dict[str, str] = {
    name: f"{title}ExecutionProvider" for name, title in zip(get_args(ProviderName), _TITLES, strict=True)
}
"""Our names for ONNX Runtime's execution providers."""

# Everything ONNX Runtime raises; its exceptions have no base class of their own.
_FAILURES = tuple(value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception))
MAX_THREADS = 1024
"""More than any machine has; ONNX Runtime would start them all."""
_FATAL = 4  # log level; what goes wrong is raised, so nothing needs to print
FLOAT_BIAS = frozenset({"tensorrt", "cpu-mirror"})
"""Targets whose biases are float because TensorRT keeps them so. On the CPU the optimiser would round them to int32
(``WeightBiasQuantization``), which moves 5 % of a ResNet-20's activation codes; for these files that pass is off."""
KINDS = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}
"""ONNX Runtime's words for the types that :class:`~rctk_export.batching.End` names."""


@dataclass(frozen=True, kw_only=True)
class OnnxRuntime:
    """Runs an ONNX file with ONNX Runtime.

    Attributes:
        threads: Threads that share one operator.
        provider: Hardware back end; it must be in the installed build. Operators that it lacks run on the CPU.
        optimize: Fuse operators. Without it the graph runs node by node, slowly and closest to its definition.
        spinning: Let idle threads spin. Faster on a quiet machine; p90 seven to nine times the median on a busy one.
        io_binding: Keep input and output buffers between calls. Saves about 1 microsecond a call, which shows only
            in the smallest networks at batch 1; one thread at a time may then call ``predict``.
    """

    threads: int = 1
    provider: ProviderName = "cpu"
    optimize: bool = True
    spinning: bool = False
    io_binding: bool = False

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise OptionError(f"threads must be 1 or more, got {self.threads}")
        if self.threads > MAX_THREADS:
            raise OptionError(f"threads must be at most {MAX_THREADS}, got {self.threads}")
        if self.provider not in PROVIDERS:
            raise OptionError(f"unknown provider {self.provider!r}; choose from {', '.join(PROVIDERS)}")

    def open(self, source: Source) -> OnnxRuntimeEngine:
        """Load ``source``; :class:`~rctk_kernels.errors.EngineError` where it cannot be had as asked."""
        return OnnxRuntimeEngine(source, self)


@final
class OnnxRuntimeEngine:
    """A loaded ONNX file; see :class:`rctk_export.engine.Engine`.

    Attributes:
        notes: What the user should know about how the file runs here; for printing.
        optimized: Whether ONNX Runtime's optimiser was on.
    """

    def __init__(self, source: Source, settings: OnnxRuntime) -> None:
        self._spec = source.input
        self.optimized, self.notes = _precautions(source, settings)
        self._session: Any = _session(source, settings, optimize=self.optimized)
        inputs, outputs = (
            [_end(end) for end in ends()] for ends in (self._session.get_inputs, self._session.get_outputs)
        )
        self._input, self._output = one_input_one_output(source.path.name, inputs, outputs, source.input)
        self._binding = _Binding(self._session, self._input, self._output) if settings.io_binding else None

    def __enter__(self) -> OnnxRuntimeEngine:
        return self

    def __exit__(self, *exc: object) -> None:
        self._session = self._binding = None

    def predict(self, images: FloatNCHW) -> FloatNK:
        """Classify a batch; see :class:`rctk_export.engine.Engine`."""
        images, batch = checked(images, self._spec), self._input.batch
        if len(images) == 0:
            return self._run(np.zeros((batch or 1, *self._spec.shape), dtype=np.float32))[:0].copy()
        if batch is None or batch == len(images):
            return self._run(images)
        return in_fixed_batches(images, batch, self._run)

    def _run(self, images: FloatNCHW) -> FloatNK:
        if self._session is None:
            raise EngineError("this engine is closed; open it again with `with settings.open(source) as engine:`")
        feed = pixels(images) if self._input.kind == "uint8" else images
        try:
            if self._binding is not None:
                return self._binding.run(feed)
            (logits,) = self._session.run([self._output.name], {self._input.name: feed})
        except _FAILURES as error:
            raise EngineError(f"ONNX Runtime failed on a batch of {len(images)}: {_one_line(error)}") from error
        return checked_logits(logits, len(images))


class _Binding:
    """Input and output buffers that live as long as the batch size stays the same."""

    def __init__(self, session: Any, entry: End, exit_: End) -> None:
        classes = exit_.shape[-1] if exit_.shape and len(exit_.shape) == 2 else None
        if exit_.kind != "float32" or classes is None:
            raise EngineError(
                f"io_binding needs float logits of known size, got {exit_.kind} {exit_.shape}; leave it off"
            )
        self._session, self._entry, self._exit, self._classes = session, entry, exit_, classes
        self._feed: npt.NDArray[Any] = np.empty(0)

    def run(self, feed: npt.NDArray[Any]) -> FloatNK:
        """Run one batch; the result is a copy."""
        if feed.shape != self._feed.shape:
            self._bind(feed)
        np.copyto(self._feed, feed)
        self._session.run_with_iobinding(self._bound)
        self._bound.synchronize_outputs()
        return self._logits.copy()

    def _bind(self, feed: npt.NDArray[Any]) -> None:
        # Buffers of our own: ONNX Runtime would write later images into an array that it was given to read.
        self._feed = np.empty_like(feed)
        self._logits = np.empty((len(feed), self._classes), dtype=np.float32)
        self._bound = self._session.io_binding()
        self._bound.bind_input(self._entry.name, "cpu", 0, feed.dtype, feed.shape, self._feed.ctypes.data)
        shape, pointer = self._logits.shape, self._logits.ctypes.data
        self._bound.bind_output(self._exit.name, "cpu", 0, np.float32, shape, pointer)


def _precautions(source: Source, settings: OnnxRuntime) -> tuple[bool, tuple[str, ...]]:
    """Decide whether to optimise, and say why not."""
    eight_bit = source.target in {"cpu", "cpu-mirror"} and settings.provider == "cpu" and settings.optimize
    if not (eight_bit and saturates_u8s8()):
        return settings.optimize, ()
    if source.target == "cpu-mirror":
        return False, ("no VNNI on this processor: fused u8s8 products would saturate, so cpu-mirror runs unoptimised",)
    return True, ("no VNNI on this processor: fused u8s8 products can saturate; compare with optimize=false",)


def _session(source: Source, settings: OnnxRuntime, *, optimize: bool) -> Any:
    provider = PROVIDERS[settings.provider]
    if provider not in ort.get_available_providers():
        raise EngineUnavailableError(
            f"this ONNX Runtime has no {provider}, only {', '.join(ort.get_available_providers())}; "
            f"install the build of onnxruntime for {settings.provider}, or use provider=cpu"
        )
    if not source.path.is_file():
        raise EngineError(f"no model file at {source.path}; give the path of an .onnx file or a bundle")
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads, options.inter_op_num_threads = settings.threads, 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(settings.spinning)))
    try:
        session = ort.InferenceSession(
            _model(source.path), options, providers=[provider], disabled_optimizers=unwanted_passes(source.target)
        )
    except _FAILURES as error:
        raise EngineError(f"ONNX Runtime cannot load {source.path}: {_one_line(error)}") from error
    session.disable_fallback()
    if provider not in session.get_providers():
        raise EngineUnavailableError(f"{provider} did not start; ONNX Runtime offers {session.get_providers()} instead")
    return session


def _model(path: Path) -> str | bytes:
    """Return what ONNX Runtime opens: a name, or the content where the name is no UTF-8, which it cannot take."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return path.read_bytes()
    return str(path)


def unwanted_passes(target: str) -> list[str]:
    """Return the optimiser passes that would make the file of ``target`` compute something else than it says."""
    return ["WeightBiasQuantization"] if target in FLOAT_BIAS else []


def _end(end: Any) -> End:
    sizes = tuple(size if isinstance(size, int) else None for size in end.shape)
    return End(end.name, KINDS.get(end.type, end.type), sizes)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
