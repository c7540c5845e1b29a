"""ExecuTorch with XNNPACK on the processor: runs a program that ``rctk build --engine executorch`` made.

For an ONNX file of a bundle the program of that very file is looked for in ``BUNDLE.plans``, for a bare one beside it.
A program runs on any machine with ExecuTorch; XNNPACK chooses its kernels there. In Python the runtime needs torch.

Limits: the threads of ExecuTorch are one pool of the process, so engines that are open together share their number.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final
from weakref import WeakSet

import numpy as np

from rctk_export.batching import checked, checked_logits, in_fixed_batches, pixels
from rctk_export.engine import Source
from rctk_export.engines.executorch_program import PROGRAM, program_path, read_program, read_record
from rctk_export.input_spec import FloatNCHW, FloatNK
from rctk_kernels.errors import EngineError, EngineUnavailableError, OptionError

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says on import that its interface may change
        import torch
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime
except ImportError as error:
    raise EngineUnavailableError(
        "the executorch engine needs ExecuTorch; install it with `pip install 'rctk[executorch]'`"
    ) from error

XNNPACK = "XnnpackBackend"
METHOD = "forward"
BYTE, FLOAT = 0, 6
"""PyTorch's numbers for the types uint8 and float32."""
MAX_THREADS = 1024
_FAILURES = (RuntimeError, ValueError, TypeError)


@dataclass(frozen=True, kw_only=True)
class ExecuTorch:
    """Runs an ExecuTorch program.

    Attributes:
        program: Path of the program; that of the model file by default.
        threads: Threads that share one operator; the pool of the whole process is set to it.
    """

    program: str = ""
    threads: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= MAX_THREADS:
            raise OptionError(f"threads must be 1 to {MAX_THREADS}, got {self.threads}")

    def open(self, source: Source) -> ExecuTorchEngine:
        """Load the program of ``source``; :class:`~rctk_kernels.errors.EngineError` where it cannot be had as asked."""
        return ExecuTorchEngine(source, self)


@final
class ExecuTorchEngine:
    """A loaded program; see :class:`rctk_export.engine.Engine`. One thread at a time may call ``predict``.

    Attributes:
        record: What the build wrote down.
    """

    def __init__(self, source: Source, settings: ExecuTorch) -> None:
        bare = source.path.suffix == PROGRAM
        path = Path(settings.program) if settings.program else source.path if bare else program_path(source.path)
        self.record = read_record(path)
        if self.record.input.shape != source.input.shape:
            raise EngineError(
                f"{path} takes images {self.record.input.shape}, the input spec says {source.input.shape}; mend --input"
            )
        content = read_program(path, self.record, "" if bare else source.sha256)
        runtime = Runtime.get()
        if not runtime.backend_registry.is_available(XNNPACK):
            raise EngineUnavailableError("this build of ExecuTorch has no XNNPACK; install the one of PyPI")
        self._spec = source.input
        _set_threads(settings.threads)
        try:
            self._program: Any = runtime.load_program(content)  # it owns the bytes that the method reads
            self._method: Any = self._program.load_method(METHOD)
            entry = self._method.metadata.input_tensor_meta(0)
            self._batch, self._kind = int(entry.sizes()[0]), int(entry.dtype())
        except _FAILURES as error:
            raise EngineError(f"ExecuTorch cannot load {path}: {_one_line(error)}") from error
        _OPEN.add(self)

    def __enter__(self) -> ExecuTorchEngine:
        return self

    def __exit__(self, *exc: object) -> None:
        self._method = None
        self._program = None
        _OPEN.discard(self)

    def predict(self, images: FloatNCHW) -> FloatNK:
        """Classify a batch; see :class:`rctk_export.engine.Engine`."""
        images = checked(images, self._spec)
        if len(images) == 0:
            return self._run(np.zeros((self._batch, *self._spec.shape), dtype=np.float32))[:0].copy()
        if len(images) == self._batch:
            return self._run(images)
        return in_fixed_batches(images, self._batch, self._run)

    def _run(self, images: FloatNCHW) -> FloatNK:
        if self._method is None:
            raise EngineError("this engine is closed; open it again with `with settings.open(source) as engine:`")
        feed = pixels(images) if self._kind == BYTE else images if images.flags.writeable else images.copy()
        try:
            (logits,) = self._method.execute([torch.from_numpy(feed)])
        except _FAILURES as error:
            raise EngineError(f"ExecuTorch failed on a batch of {len(images)}: {_one_line(error)}") from error
        return checked_logits(logits.numpy(), len(images))


_OPEN: WeakSet[ExecuTorchEngine] = WeakSet()
"""Engines whose programs hold on to the pool of threads."""


def _set_threads(count: int) -> None:
    """Give the process a pool of ``count`` threads; ExecuTorch has no other way to say how many an engine uses."""
    found = int(portable_lib._threadpool_get_thread_count())  # noqa: SLF001  # its only name
    if found == count:
        return
    if len(_OPEN):
        raise EngineError(
            f"an ExecuTorch engine with {found} threads is open, and all in a process share one pool; close it, or use "
            f"threads={found}"
        )
    portable_lib._unsafe_reset_threadpool(count)  # noqa: SLF001


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
