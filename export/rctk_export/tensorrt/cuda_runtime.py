"""The few calls of the CUDA runtime that an engine needs, on ctypes; every return code is looked at and named.

ctypes on ``libcudart`` needs no package: JetPack has the library, and so have the wheels that TensorRT's own wheels
pull in. (cuda-python moved its modules between 12 and 13 and is absent on JetPack 6.)
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rctk_kernels.errors import EngineError, EngineUnavailableError

SONAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")
FOLDERS = ("nvidia/cu13/lib", "nvidia/cuda_runtime/lib")
"""Where the wheels of CUDA 13 and 12 keep the library, below site-packages."""
OUT_OF_MEMORY, INVALID_DEVICE, NO_DEVICE, OLD_DRIVER = 2, 101, 100, 35  # cudaError_t
NON_BLOCKING = 1  # cudaStreamNonBlocking: does not wait for the default stream
TO_DEVICE, TO_HOST = 1, 2  # cudaMemcpyKind
RELAXED = 2  # cudaStreamCaptureModeRelaxed: other threads may go on allocating
MAJOR, MINOR, INTEGRATED = 75, 76, 18  # cudaDeviceAttr
PROPERTIES_BYTES = 4096  # more than any version's cudaDeviceProp; all begin with name[256] and uuid[16]
STEPS = {
    OUT_OF_MEMORY: "use a smaller batch (`rctk build --max-batch`), or free memory on the device",
    NO_DEVICE: "run this on a machine with an NVIDIA GPU, and let the container see it (--gpus all, --runtime nvidia)",
    INVALID_DEVICE: "choose a device that `nvidia-smi -L` lists",
    OLD_DRIVER: "update the NVIDIA driver, or install a CUDA runtime that it supports",
}


class CudaError(EngineError):
    """A call of the CUDA runtime failed.

    Attributes:
        code: Its ``cudaError_t``.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Device(NamedTuple):
    """A GPU."""

    name: str
    uuid: str
    """As ``nvidia-smi -L`` prints it, ``GPU-...``."""
    compute_capability: str
    """Such as ``8.7``."""
    integrated: bool
    """Whether it shares its memory with the CPU, as on a Jetson."""
    free_bytes: int
    total_bytes: int


class CudaRuntime:
    """Typed calls of one ``libcudart``.

    Args:
        library: The loaded library.
    """

    def __init__(self, library: Any) -> None:
        self._library = library

    def _call(self, name: str, *arguments: Any) -> None:
        try:
            function = getattr(self._library, name)
        except AttributeError as error:
            raise EngineUnavailableError(
                f"this libcudart has no {name}; rctk needs CUDA 12 or newer: install another libcudart"
            ) from error
        code = int(function(*arguments))
        if code:
            self._library.cudaGetLastError()  # otherwise the next call reports it again
            raise CudaError(
                f"{name}: {self.error_text(code)}; {STEPS.get(code, 'look at the kernel log (dmesg)')}", code
            )

    def error_text(self, code: int) -> str:
        """Return the name of an error and what CUDA says about it."""
        texts = []
        for name in ("cudaGetErrorName", "cudaGetErrorString"):
            function = getattr(self._library, name)
            function.restype = ctypes.c_char_p
            texts.append(bytes(function(code)).decode(errors="replace"))
        return f"{texts[0]} ({texts[1]})"

    def _number(self, name: str, *arguments: Any) -> int:
        value = ctypes.c_int()
        self._call(name, ctypes.byref(value), *arguments)
        return value.value

    def _handle(self, name: str, *arguments: Any) -> int:
        value = ctypes.c_void_p()
        self._call(name, ctypes.byref(value), *arguments)
        return value.value or 0

    def device_count(self) -> int:
        """Return the number of GPUs; :class:`CudaError` where there is none, or the driver is too old."""
        return self._number("cudaGetDeviceCount")

    def versions(self) -> tuple[str, str]:
        """Return the newest CUDA that the driver supports (0.0 without a driver), and that of this library."""
        return _dotted(self._number("cudaDriverGetVersion")), _dotted(self._number("cudaRuntimeGetVersion"))

    @contextmanager
    def on(self, device: int) -> Iterator[None]:
        """Make ``device`` the current one of this thread while the block lasts."""
        before = self._number("cudaGetDevice")
        if before != device:
            self._call("cudaSetDevice", ctypes.c_int(device))
        try:
            yield
        finally:
            if before != device:
                self._call("cudaSetDevice", ctypes.c_int(before))

    def device(self, index: int) -> Device:
        """Describe a GPU."""
        properties = ctypes.create_string_buffer(PROPERTIES_BYTES)
        newest = hasattr(self._library, "cudaGetDeviceProperties_v2")  # CUDA 12 only; before and after without _v2
        name = "cudaGetDeviceProperties_v2" if newest else "cudaGetDeviceProperties"
        self._call(name, properties, ctypes.c_int(index))
        major, minor, integrated = (
            self._number("cudaDeviceGetAttribute", ctypes.c_int(attribute), ctypes.c_int(index))
            for attribute in (MAJOR, MINOR, INTEGRATED)
        )
        with self.on(index):
            free, total = self.memory()
        title = properties.raw[:256].split(b"\0")[0].decode(errors="replace")
        return Device(title, _uuid(properties.raw[256:272]), f"{major}.{minor}", bool(integrated), free, total)

    def memory(self) -> tuple[int, int]:
        """Return the free and the total bytes of the current GPU; of the whole system where memory is shared."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def allocate(self, count: int) -> int:
        """Return the address of ``count`` bytes on the device."""
        return self._handle("cudaMalloc", ctypes.c_size_t(count))

    def free(self, address: int) -> None:
        """Give device memory back."""
        self._call("cudaFree", ctypes.c_void_p(address))

    def allocate_pinned(self, count: int) -> int:
        """Return the address of ``count`` bytes on the host that the device can copy from while the CPU goes on."""
        return self._handle("cudaHostAlloc", ctypes.c_size_t(count), ctypes.c_uint(0))

    def free_pinned(self, address: int) -> None:
        """Give pinned memory back."""
        self._call("cudaFreeHost", ctypes.c_void_p(address))

    def copy_to_device(self, device: int, host: int, count: int, stream: int) -> None:
        """Enqueue a copy of ``count`` bytes to the device."""
        self._copy(device, host, count, TO_DEVICE, stream)

    def copy_to_host(self, host: int, device: int, count: int, stream: int) -> None:
        """Enqueue a copy of ``count`` bytes to the host."""
        self._copy(host, device, count, TO_HOST, stream)

    def _copy(self, to: int, source: int, count: int, kind: int, stream: int) -> None:
        pointers = ctypes.c_void_p(to), ctypes.c_void_p(source)
        self._call("cudaMemcpyAsync", *pointers, ctypes.c_size_t(count), ctypes.c_int(kind), ctypes.c_void_p(stream))

    def create_stream(self) -> int:
        """Return a stream that does not wait for the default one."""
        return self._handle("cudaStreamCreateWithFlags", ctypes.c_uint(NON_BLOCKING))

    def synchronize(self, stream: int) -> None:
        """Wait until everything on ``stream`` is done; errors of kernels show here."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(stream))

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back."""
        self._call("cudaStreamDestroy", ctypes.c_void_p(stream))

    def begin_capture(self, stream: int) -> None:
        """Record what is enqueued on ``stream`` from now on instead of running it."""
        self._call("cudaStreamBeginCapture", ctypes.c_void_p(stream), ctypes.c_int(RELAXED))

    def end_capture(self, stream: int) -> int:
        """Return the recorded work as a graph that can be launched."""
        graph = ctypes.c_void_p()
        self._call("cudaStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        try:
            return self._handle("cudaGraphInstantiateWithFlags", graph, ctypes.c_ulonglong(0))
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: int, stream: int) -> None:
        """Enqueue a recorded graph."""
        self._call("cudaGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def destroy_graph(self, graph: int) -> None:
        """Give a graph back."""
        self._call("cudaGraphExecDestroy", ctypes.c_void_p(graph))

    def create_event(self) -> int:
        """Return an event for timing."""
        return self._handle("cudaEventCreate")

    def record(self, event: int, stream: int) -> None:
        """Enqueue a time stamp."""
        self._call("cudaEventRecord", ctypes.c_void_p(event), ctypes.c_void_p(stream))

    def elapsed_ms(self, start: int, end: int) -> float:
        """Return the GPU time between two recorded events, after waiting for the second."""
        value = ctypes.c_float()
        self._call("cudaEventSynchronize", ctypes.c_void_p(end))
        self._call("cudaEventElapsedTime", ctypes.byref(value), ctypes.c_void_p(start), ctypes.c_void_p(end))
        return value.value

    def destroy_event(self, event: int) -> None:
        """Give an event back."""
        self._call("cudaEventDestroy", ctypes.c_void_p(event))


def load_cuda(paths: Sequence[str] | None = None) -> CudaRuntime:
    """Return the first CUDA runtime here that sees a GPU.

    Args:
        paths: Libraries to try; those of the system and of installed wheels by default, newest first.

    Raises:
        EngineUnavailableError: None is installed, or none finds a GPU; the message says which of the two and why.
    """
    reason = ""
    for path in candidates(sys.path) if paths is None else paths:
        try:
            runtime = CudaRuntime(ctypes.CDLL(path))
        except OSError:
            continue
        try:
            if runtime.device_count() > 0:
                return runtime
            reason = reason or f"no NVIDIA GPU here; {STEPS[NO_DEVICE]}"
        except CudaError as error:
            driver, cuda = runtime.versions()
            reason = reason or f"no GPU can be used (driver for CUDA {driver}, runtime {cuda}): {error}"
    raise EngineUnavailableError(
        reason
        or "no CUDA runtime (libcudart) here; install JetPack, the CUDA toolkit or `pip install 'rctk[tensorrt]'`"
    )


def candidates(search: Sequence[str]) -> list[str]:
    """Return what :func:`load_cuda` tries: names for the system's loader, then files of wheels below ``search``."""
    wheels = [
        str(file)
        for folder in FOLDERS
        for place in search
        for file in sorted((Path(place or ".") / folder).glob("libcudart.so.*"), reverse=True)
    ]
    return [*SONAMES, *wheels]


def pinned_array(address: int, shape: tuple[int, ...], kind: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an array over host memory that stays somebody else's."""
    dtype = np.dtype(kind)
    count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return np.frombuffer(memoryview((ctypes.c_uint8 * count).from_address(address)), dtype=dtype).reshape(shape)


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def _uuid(raw: bytes) -> str:
    text = raw.hex()
    return "GPU-" + "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
