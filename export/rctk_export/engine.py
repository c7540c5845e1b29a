"""What every engine offers: images in, logits out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from rctk_export.input_spec import FloatNCHW, FloatNK, InputSpec


class Engine(Protocol):
    """A loaded classifier; a context manager, closed by whoever opened it."""

    def predict(self, images: FloatNCHW) -> FloatNK:
        """Classify a batch of any size, also of none.

        Args:
            images: ``(N, C, H, W)`` float32 in [0, 1], C-contiguous or not.

        Returns:
            Logits ``(N, K)`` float32; a host array that the caller owns and may change.
        """
        ...

    def __enter__(self) -> Engine: ...  # noqa: PYI034  # Self needs Python 3.11 or another package on a device

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model file that an engine can open: from a bundle, or a bare file with flags.

    Attributes:
        path: The ONNX file (or plan); images in [0, 1] go in, normalisation is inside.
        input: Shape of its images.
        role: ``float`` or ``int8``.
        target: ``cpu``, ``openvino``, ``tensorrt``, ``cpu-mirror``, or ``""`` for the float file and bare files.
        sha256: Of the file; names the subject in records.
    """

    path: Path
    input: InputSpec
    role: str = "float"
    target: str = ""
    sha256: str = ""


def notes_of(engine: Engine) -> tuple[str, ...]:
    """Return what the user should know about how a file runs in ``engine``; most have nothing to say."""
    return tuple(getattr(engine, "notes", ()))


class EngineSettings(Protocol):
    """A row of the engine table: a frozen dataclass of settings that opens a source."""

    def open(self, source: Source) -> Engine:
        """Load ``source``; :class:`~rctk_kernels.errors.EngineError` where it cannot be had as asked."""
        ...
