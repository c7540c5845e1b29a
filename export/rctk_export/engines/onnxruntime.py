"""ONNX Runtime: the engine that most x86 and ARM products ship.

Needs NumPy and onnxruntime, nothing else. Threads, optimiser and execution provider are what the settings say; a
provider that this build or machine lacks is refused, never replaced, and so is a file of which it runs only a part.
NVIDIA's providers are engines of their own.

A graph whose batch dimension is a number, say 8, gets exactly 8 images per run: a batch is cut into chunks, the last
one filled up by repeating images, and the surplus answers are dropped. Otherwise a batch goes in whole: memory grows
with it, so the caller decides how large it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, final, get_args

from rctk_export.batching import checked, checked_logits, in_range_batches, pixels
from rctk_export.cpu import saturates_u8s8, spoils_int8
from rctk_export.engine import Source
from rctk_export.engines.onnxruntime_binding import Binding, HostBinding
from rctk_export.engines.onnxruntime_session import Opened, Order, one_line, open_session, unwanted_passes
from rctk_export.engines.onnxruntime_wheel import FAILURES, ort, present
from rctk_export.input_spec import FloatNCHW, FloatNK
from rctk_kernels.errors import EngineError, EngineUnavailableError, OptionError

__all__ = ["PROVIDERS", "OnnxRuntime", "OnnxRuntimeEngine", "unwanted_passes"]

ProviderName = Literal["cpu", "openvino", "dml", "coreml", "migraphx", "qnn", "xnnpack", "acl"]
_TITLES = ("CPU", "OpenVINO", "Dml", "CoreML", "MIGraphX", "QNN", "Xnnpack", "ACL")
PROVIDERS: dict[str, str] = {
    name: f"{title}ExecutionProvider" for name, title in zip(get_args(ProviderName), _TITLES, strict=True)
}
"""Our names for ONNX Runtime's execution providers."""
MOVED = {"cuda": "onnxruntime-cuda", "tensorrt": "onnxruntime-tensorrt"}
"""Providers that are engines of their own by now."""
SPOILT = (
    "ONNX Runtime {version} computes fused int8 products wrongly on processors with AMX, so int8 files run unoptimised "
    "and slowly; install onnxruntime>=1.25"
)
MAX_THREADS = 1024
"""More than any machine has; ONNX Runtime would start them all."""


@dataclass(frozen=True, kw_only=True)
class OnnxRuntime:
    """Runs an ONNX file with ONNX Runtime.

    Attributes:
        threads: Threads that share one operator.
        provider: Hardware back end; it must be in the installed build and run the whole file. ``cuda`` and
            ``tensorrt`` are engines of their own, ``onnxruntime-cuda`` and ``onnxruntime-tensorrt``.
        optimize: Fuse operators. Without it the graph runs node by node, slowly and closest to its definition.
        spinning: Let idle threads spin. Faster on a quiet machine; p90 seven to nine times the median on a busy one.
        io_binding: Keep input and output buffers between calls. Saves about 1 microsecond a call, which shows only
            in the smallest networks at batch 1; one thread at a time may then call ``predict``.
    """

    threads: int = 1
    provider: str = "cpu"
    optimize: bool = True
    spinning: bool = False
    io_binding: bool = False

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise OptionError(f"threads must be 1 or more, got {self.threads}")
        if self.threads > MAX_THREADS:
            raise OptionError(f"threads must be at most {MAX_THREADS}, got {self.threads}")
        if self.provider in MOVED:
            raise OptionError(
                f"provider={self.provider} is an engine of its own, which never falls back to the CPU; write "
                f"--engine {MOVED[self.provider]}"
            )
        if self.provider not in PROVIDERS:
            raise OptionError(f"unknown provider {self.provider!r}; choose from {', '.join(PROVIDERS)}")

    def open(self, source: Source) -> OnnxRuntimeEngine:
        """Load ``source``; :class:`~rctk_kernels.errors.EngineError` where it cannot be had as asked."""
        provider = PROVIDERS[self.provider]
        if not present(provider):
            raise EngineUnavailableError(
                f"this ONNX Runtime has no {provider}, only {', '.join(ort.get_available_providers())}; "
                f"install the build of onnxruntime for {self.provider}, or use provider=cpu"
            )
        optimize, notes = _precautions(source, self)
        order = Order(
            provider=provider,
            threads=self.threads,
            optimize=optimize,
            spinning=self.spinning,
            remedy="export without those operators, or use provider=cpu",
        )
        opened = open_session(source, order)
        binding = HostBinding(opened.session, opened.entry, opened.exit) if self.io_binding else None
        return OnnxRuntimeEngine(source, opened, binding=binding, notes=notes, optimized=optimize)


@final
class OnnxRuntimeEngine:
    """A loaded ONNX file; see :class:`rctk_export.engine.Engine`.

    Args:
        source: The file.
        opened: Its session.
        binding: Buffers that are kept; the session's own for None.
        batches: Fewest and most images of a run; any number for None. A graph of fixed batch overrules it.
        notes: See below.
        optimized: See below.

    Attributes:
        notes: What the user should know about how the file runs here; for printing.
        optimized: Whether ONNX Runtime's optimiser was on.
    """

    def __init__(  # what each provider decides for itself
        self,
        source: Source,
        opened: Opened,
        *,
        binding: Binding | None = None,
        batches: tuple[int, int | None] = (1, None),
        notes: Sequence[str] = (),
        optimized: bool = True,
    ) -> None:
        self._session: Any = opened.session
        self._spec, self._binding = source.input, binding
        self._input, self._output, self._placement = opened.entry, opened.exit, opened.placement
        fixed = opened.entry.batch
        self._fewest, self._most = batches if fixed is None else (fixed, fixed)
        self.notes, self.optimized = tuple(notes), optimized

    def __enter__(self) -> OnnxRuntimeEngine:
        return self

    def __exit__(self, *exc: object) -> None:
        self._session = self._binding = None

    def nodes(self) -> dict[str, tuple[str, ...]]:
        """Return the nodes that each provider runs, as ``name (Operator)``; empty where this version does not tell."""
        return dict(self._placement)

    def placement(self) -> dict[str, int]:
        """Return how many nodes each provider runs; empty where this ONNX Runtime (before 1.24) does not tell."""
        return {name: len(nodes) for name, nodes in self._placement.items()}

    def predict(self, images: FloatNCHW) -> FloatNK:
        """Classify a batch; see :class:`rctk_export.engine.Engine`."""
        return in_range_batches(checked(images, self._spec), self._fewest, self._most, self._run)

    def _run(self, images: FloatNCHW) -> FloatNK:
        if self._session is None:
            raise EngineError("this engine is closed; open it again with `with settings.open(source) as engine:`")
        feed = pixels(images) if self._input.kind == "uint8" else images
        try:
            if self._binding is not None:
                return self._binding.run(feed)
            (logits,) = self._session.run([self._output.name], {self._input.name: feed})
        except FAILURES as error:
            raise EngineError(f"ONNX Runtime failed on a batch of {len(images)}: {one_line(error)}") from error
        return checked_logits(logits, len(images))


def _precautions(source: Source, settings: OnnxRuntime) -> tuple[bool, tuple[str, ...]]:
    """Decide whether to optimise, and say why not."""
    plain = settings.provider == "cpu" and settings.optimize
    eight_bit = plain and source.target in {"cpu", "openvino", "cpu-mirror"}
    if (eight_bit or (plain and source.role == "int8")) and spoils_int8(ort.__version__):
        return False, (SPOILT.format(version=ort.__version__),)
    if not (eight_bit and saturates_u8s8()):
        return settings.optimize, ()
    if source.target == "cpu-mirror":
        return False, ("no VNNI on this processor: fused u8s8 products would saturate, so cpu-mirror runs unoptimised",)
    return True, ("no VNNI on this processor: fused u8s8 products can saturate; compare with optimize=false",)
