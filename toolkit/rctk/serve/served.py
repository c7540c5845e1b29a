"""A model behind a server: an engine in a thread of its own, with a queue that has an end."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Literal

import numpy as np

from rctk_export.engine import Engine, EngineSettings, Source
from rctk_export.engines.remote_digits import DIGITS, OURS
from rctk_export.input_spec import FloatNCHW, FloatNK
from rctk_kernels.errors import EngineError, RctkError

INPUT, OUTPUT = "images", "logits"
Refusal = Literal["bad", "large", "unknown", "busy", "failed", "forbidden", "late"]


class RefusedError(Exception):
    """A request that is not answered, and why; every protocol has its own codes for that."""

    def __init__(self, why: Refusal, text: str) -> None:
        super().__init__(" ".join(text.split())[:400])
        self.why = why


def model_name(text: str) -> str:
    """Turn the name of a bundle into one that fits into an address.

    Example:
        >>> model_name("my net (v2).onnx")
        'my-net-v2-.onnx'
    """
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text).lstrip(".-") or "model"


class Served:
    """One model; a context manager that opens its engine in its thread and closes it there.

    Attributes:
        name: In addresses.
        version: The first digits of the file's SHA-256, so that a client sees which file answers.
        platform: ``rctk_`` and the engine.
        shape: ``(C, H, W)`` of its images.
        classes: ``K``.

    Args:
        name: In addresses.
        source: The file.
        settings: What opens it.
        engine: Name of the engine.
        waiting: Most requests in the queue.
    """

    def __init__(self, name: str, source: Source, settings: EngineSettings, engine: str, waiting: int) -> None:
        self.name, self.version = name, source.sha256[:DIGITS]
        self.platform = OURS + engine.partition(":")[0]
        self.shape = source.input.shape
        self.classes = 0
        self._open: Callable[[], Engine] = lambda: settings.open(source)
        self._queue: queue.Queue[tuple[FloatNCHW, Future[FloatNK]] | None] = queue.Queue(waiting)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"engine {name}", daemon=True)
        self._started: Future[int] = Future()

    @property
    def image_bytes(self) -> int:
        """Size of one image as float32."""
        return 4 * self.shape[0] * self.shape[1] * self.shape[2]

    def __enter__(self) -> Served:  # noqa: PYI034  # Self needs Python 3.11
        self._thread.start()
        self.classes = self._started.result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._thread.join()
        while not self._queue.empty():
            waiting = self._queue.get_nowait()
            if waiting is not None:
                waiting[1].cancel()

    def submit(self, images: FloatNCHW) -> Future[FloatNK]:
        """Hand a batch to the engine; :class:`RefusedError` where too many wait already."""
        answer: Future[FloatNK] = Future()
        try:
            self._queue.put_nowait((images, answer))
        except queue.Full as error:
            raise RefusedError("busy", f"{self._queue.maxsize} requests wait already; come again") from error
        return answer

    def describe(self) -> Mapping[str, Any]:
        """Return its metadata in the words of the protocol."""
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": self.platform,
            "inputs": [{"name": INPUT, "datatype": "FP32", "shape": [-1, *self.shape]}],
            "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, self.classes]}],
        }

    def _work(self) -> None:
        try:
            with self._open() as engine:
                classes = engine.predict(np.zeros((1, *self.shape), dtype=np.float32)).shape[1]
                self._started.set_result(classes)
                while not self._closed.is_set():
                    self._answer(engine)
        except BaseException as error:  # noqa: BLE001  # whoever opened it gets it
            if not self._started.done():
                self._started.set_exception(error)

    def _answer(self, engine: Engine) -> None:
        try:
            waiting = self._queue.get(timeout=0.1)
        except queue.Empty:
            return
        if waiting is None or not waiting[1].set_running_or_notify_cancel():
            return
        images, answer = waiting
        try:
            answer.set_result(engine.predict(images))
        except RctkError as error:
            answer.set_exception(RefusedError("failed", str(error)))
        except MemoryError as error:
            answer.set_exception(RefusedError("failed", f"out of memory, send fewer images: {error}"))
        except Exception as error:  # noqa: BLE001  # one request must not end the server
            answer.set_exception(RefusedError("failed", f"{type(error).__name__}: {error}"))


def served_named(models: Mapping[str, Served], name: str, version: str = "") -> Served:
    """Return the model of that name; :class:`RefusedError` names those that are there."""
    if name not in models:
        raise RefusedError("unknown", f"no model {name!r} here; there is {', '.join(models)}")
    found = models[name]
    if version not in {"", found.version}:
        raise RefusedError("unknown", f"{name} has no version {version!r}, only {found.version}")
    return found


def checked_tensor(served: Served, names: list[str], datatype: str, shape: list[int], most: int) -> None:
    """Refuse anything that is not one batch of images for this model.

    Args:
        served: The model.
        names: Of all inputs.
        datatype: Of the first.
        shape: Of the first.
        most: Images.
    """
    if names != [INPUT]:
        raise RefusedError("bad", f"{served.name} takes one input, {INPUT!r}, got {names}")
    if datatype != "FP32":
        raise RefusedError("bad", f"{INPUT} is FP32, got {datatype}")
    if len(shape) != 4 or tuple(shape[1:]) != served.shape or shape[0] < 1:
        raise RefusedError("bad", f"{INPUT} has shape [N, {', '.join(map(str, served.shape))}], got {shape}")
    if shape[0] > most:
        raise RefusedError("large", f"{shape[0]} images are more than {most}; send fewer at a time")


def unavailable(package: str, error: ImportError) -> EngineError:
    """Word what a server misses."""
    return EngineError(f"rctk serve needs {package} ({error}); install it with `pip install 'rctk[serve]'`")
