"""Buffers that ONNX Runtime reads and writes in place, kept between calls."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rctk_export.batching import End
from rctk_export.engines.onnxruntime_wheel import ort
from rctk_export.input_spec import FloatNK
from rctk_kernels.errors import EngineError


class Binding(Protocol):
    """One batch in, its logits out; the result belongs to the caller."""

    def run(self, feed: npt.NDArray[Any]) -> FloatNK:
        """Run one batch and wait for it."""
        ...


class HostBinding:
    """Input and output buffers in the memory of the host that live as long as the batch size stays the same."""

    def __init__(self, session: Any, entry: End, exit_: End) -> None:
        self._session, self._entry, self._exit, self._classes = session, entry, exit_, _classes(exit_)
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


class DeviceBinding:
    """Input and output buffers in the memory of a device, at addresses that stay, as a CUDA graph asks for.

    Args:
        session: Of ONNX Runtime.
        entry: Its input.
        exit_: Its output: float logits of known size.
        device: ``cuda``, or ``cpu`` for the host.
        index: Number of the device.
    """

    def __init__(self, session: Any, entry: End, exit_: End, device: str, index: int) -> None:
        self._session, self._entry, self._exit, self._classes = session, entry, exit_, _classes(exit_)
        self._place = (device, index)
        self._shape: tuple[int, ...] = ()

    def run(self, feed: npt.NDArray[Any]) -> FloatNK:
        """Copy one batch in, run it, wait, and copy its logits out."""
        if feed.shape != self._shape:
            self._bind(feed)
        self._images.update_inplace(feed)
        self._bound.synchronize_inputs()
        self._session.run_with_iobinding(self._bound)
        self._bound.synchronize_outputs()
        return np.array(self._logits.numpy(), dtype=np.float32)

    def _bind(self, feed: npt.NDArray[Any]) -> None:
        make = ort.OrtValue.ortvalue_from_shape_and_type
        self._images = make(feed.shape, feed.dtype.type, *self._place)
        self._logits = make((len(feed), self._classes), np.float32, *self._place)
        self._bound = self._session.io_binding()
        self._bound.bind_ortvalue_input(self._entry.name, self._images)
        self._bound.bind_ortvalue_output(self._exit.name, self._logits)
        self._shape = feed.shape


def _classes(exit_: End) -> int:
    classes = exit_.shape[-1] if exit_.shape and len(exit_.shape) == 2 else None
    if exit_.kind != "float32" or classes is None:
        raise EngineError(f"io_binding needs float logits of known size, got {exit_.kind} {exit_.shape}; leave it off")
    return classes
