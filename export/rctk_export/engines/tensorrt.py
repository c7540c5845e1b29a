"""TensorRT: runs a plan that `rctk build` made on this machine. No torch; NumPy, TensorRT and the CUDA runtime.

For an ONNX file of a bundle the plan of that very file is looked for in ``BUNDLE.plans``, for a bare one beside it. A
plan that another machine, another TensorRT or another file made is refused before a byte of it is loaded.

A batch larger than the plan's profile is cut into chunks, one smaller than it is filled up by repeating images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

from rctk_export.batching import checked, checked_logits, in_range_batches, pixels
from rctk_export.engine import Source
from rctk_export.input_spec import FloatNCHW, FloatNK
from rctk_export.tensorrt.record import PLAN, check_content, plan_path, read_record, refuse_elsewhere
from rctk_kernels.errors import EngineError, OptionError

if TYPE_CHECKING:
    from rctk_export.tensorrt.session import Session


@dataclass(frozen=True, kw_only=True)
class TensorRT:
    """Runs a TensorRT plan.

    Attributes:
        plan: Path of the plan; that of the model file by default.
        device: Number of the GPU.
        cuda_graph: Record the work of each batch size once and launch the recording: less time on the host per call.
    """

    plan: str = ""
    device: int = 0
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        if self.device < 0:
            raise OptionError(f"device must be 0 or more, got {self.device}")

    def open(self, source: Source) -> TensorRTEngine:
        """Load the plan of ``source``; :class:`~rctk_kernels.errors.EngineError` where it cannot be had as asked."""
        return TensorRTEngine(source, self)


@final
class TensorRTEngine:
    """A loaded plan; see :class:`rctk_export.engine.Engine`. One thread at a time may call ``predict``.

    Attributes:
        record: What the build wrote down.
        notes: What the user should know about how the file runs here; for printing.
    """

    def __init__(self, source: Source, settings: TensorRT) -> None:
        bare = source.path.suffix == PLAN
        path = Path(settings.plan) if settings.plan else source.path if bare else plan_path(source.path)
        self.record = read_record(path)
        if self.record.input.shape != source.input.shape:
            raise EngineError(
                f"{path} takes images {self.record.input.shape}, the input spec says {source.input.shape}; mend --input"
            )
        from rctk_export.tensorrt.here import look_around  # noqa: PLC0415  # here TensorRT is imported
        from rctk_export.tensorrt.session import Session, SessionSettings  # noqa: PLC0415

        here = look_around(settings.device)
        refuse_elsewhere(self.record, here.place)
        plan = path.read_bytes()
        check_content(self.record, path.name, plan, "" if bare else source.sha256)
        self._spec = source.input
        self.notes = tuple(text for text in (self.record.report.warning,) if text)
        self._plan_bytes = len(plan)
        host_code = bool(self.record.options.get("version_compatible"))
        how = SessionSettings(path.name, settings.device, settings.cuda_graph, host_code)
        session = Session(plan, source.input, here.cuda, how)
        self._fewest, self._most = session.batches()
        self._session: Session | None = session

    def __enter__(self) -> TensorRTEngine:
        return self

    def __exit__(self, *exc: object) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def time_device(self) -> None:
        """Put CUDA events around the work of every batch from now on."""
        self._open().time_work()

    def device_ms(self) -> float:
        """Return the time on the GPU of the last ``predict``, copies included; 0 before :meth:`time_device`."""
        return self._open().device_ms

    def planned_bytes(self) -> int:
        """Return the bytes of the plan and of the device memory that TensorRT reserves for running it."""
        return self._plan_bytes + self._open().planned_bytes()

    def predict(self, images: FloatNCHW) -> FloatNK:
        """Classify a batch; see :class:`rctk_export.engine.Engine`."""
        images = checked(images, self._spec)
        self._open().device_ms = 0.0
        return in_range_batches(images, self._fewest, self._most, self._run)

    def _run(self, images: FloatNCHW) -> FloatNK:
        session = self._open()
        feed = pixels(images) if session.entry.kind == "uint8" else images
        return checked_logits(session.run(feed), len(images))

    def _open(self) -> Session:
        if self._session is None:
            raise EngineError("this engine is closed; open it again with `with settings.open(source) as engine:`")
        return self._session
