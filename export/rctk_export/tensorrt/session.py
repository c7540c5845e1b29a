"""A loaded plan with its buffers: one stream, pinned host memory, one batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rctk_export.batching import End, one_input_one_output
from rctk_export.input_spec import FloatNK, InputSpec
from rctk_export.tensorrt.api import Messages, start_runtime, trt
from rctk_export.tensorrt.cuda_runtime import OUT_OF_MEMORY, CudaError, CudaRuntime, pinned_array
from rctk_kernels.errors import EngineError

KINDS = {"FLOAT": "float32", "UINT8": "uint8", "HALF": "float16"}
"""TensorRT's words for the types that an input or output of a classifier may have."""
MIB = 2**20


class SessionSettings(NamedTuple):
    """How a plan is run."""

    name: str
    """What to call it in messages."""
    device: int = 0
    """Number of the GPU."""
    cuda_graph: bool = False
    """Record each batch size once and launch the recording."""
    host_code: bool = False
    """Whether the plan may bring host code, as version-compatible ones do."""


class Session:
    """Runs a plan on one device; used by one thread at a time.

    Args:
        plan: The serialized engine; whoever comes here has checked that it belongs here.
        spec: Its images.
        cuda: The runtime to copy and wait with.
        settings: How to run it.
    """

    def __init__(self, plan: bytes, spec: InputSpec, cuda: CudaRuntime, settings: SessionSettings) -> None:
        self._name, self._cuda, self._device = settings.name, cuda, settings.device
        self._with_graphs = settings.cuda_graph
        self._messages = Messages()
        self._graphs: dict[int, int] = {}
        self._count = 0  # images that the context is set to
        self._events: tuple[int, int] | None = None
        self.device_ms = 0.0  # adds up over runs, once time_work was called
        self._held = ExitStack()
        with self._on_device(), ExitStack() as held:
            self._load(plan, spec, host_code=settings.host_code)
            self.stream = cuda.create_stream()
            held.callback(cuda.destroy_stream, self.stream)
            self._allocate(held)
            held.callback(self._forget_graphs)
            self._held = held.pop_all()

    def _load(self, plan: bytes, spec: InputSpec, *, host_code: bool) -> None:
        self._logger = self._messages.logger()
        self._runtime = start_runtime(self._logger, self._messages)
        if host_code:
            self._runtime.engine_host_code_allowed = True
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(
                f"TensorRT {trt.__version__} cannot load {self._name}: {self._messages.reason()}{self._advice()}"
            )
        ends = self._ends(trt.TensorIOMode.INPUT), self._ends(trt.TensorIOMode.OUTPUT)
        self.entry, self._exit = self._ends_ = one_input_one_output(self._name, *ends, spec)
        if self._exit.kind != "float32" or len(self._exit.shape or ()) != 2:
            raise EngineError(f"{self._name} returns {self._exit.kind} {self._exit.shape}, expected float32 (N, K)")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            wanted = int(self._engine.device_memory_size_v2)
            raise EngineError(self._no_memory(wanted, self._messages.reason()))

    def _ends(self, mode: trt.TensorIOMode) -> list[End]:
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        return [self._end(name) for name in names if engine.get_tensor_mode(name) == mode]

    def _end(self, name: str) -> End:
        kind = self._engine.get_tensor_dtype(name).name
        shape = self._engine.get_tensor_shape(name)
        sizes = [int(shape[i]) for i in range(len(shape))]
        return End(name, KINDS.get(kind, kind.lower()), tuple(None if size < 0 else size for size in sizes))

    def batches(self) -> tuple[int, int]:
        """Return the fewest and the most images of a call."""
        entry = self.entry
        if entry.batch is not None:
            return entry.batch, entry.batch
        low, _, high = self._engine.get_tensor_profile_shape(entry.name, 0)
        return int(low[0]), int(high[0])

    def _allocate(self, held: ExitStack) -> None:
        """Reserve buffers for the largest batch; their addresses stay the same, as recorded graphs need."""
        self._buffers: dict[str, tuple[int, npt.NDArray[Any]]] = {}
        _, most = self.batches()
        for end in (self.entry, self._exit):
            shape = (most, *(size or 1 for size in (end.shape or ())[1:]))
            count = int(np.prod(shape, dtype=np.int64)) * np.dtype(end.kind).itemsize
            try:
                device = self._cuda.allocate(count)
                held.callback(self._cuda.free, device)
                host = self._cuda.allocate_pinned(count)
                held.callback(self._cuda.free_pinned, host)
            except CudaError as error:
                if error.code != OUT_OF_MEMORY:
                    raise
                raise EngineError(self._no_memory(count, str(error))) from error
            self._buffers[end.name] = device, pinned_array(host, shape, end.kind)
            self._true(self._context.set_tensor_address(end.name, device), f"the address of {end.name!r}")

    def time_work(self) -> None:
        """Put events around the work of every batch from now on; :attr:`device_ms` adds up the time between them."""
        if self._events is None:
            with self._on_device():
                self._events = self._event(), self._event()

    def _event(self) -> int:
        event = self._cuda.create_event()
        self._held.callback(self._cuda.destroy_event, event)
        return event

    def planned_bytes(self) -> int:
        """Return the device memory of the execution context."""
        return int(self._engine.device_memory_size_v2)

    def run(self, feed: npt.NDArray[Any]) -> FloatNK:
        """Run one batch of a size that the profile covers, and wait for it; the result is a copy."""
        with self._on_device():
            self._set_batch(len(feed))
            self._host(self.entry, len(feed))[...] = feed
            self._timed_work(len(feed))
            try:
                self._cuda.synchronize(self.stream)
                if self._events is not None:
                    self.device_ms += self._cuda.elapsed_ms(*self._events)
            except CudaError as error:
                raise EngineError(f"{self._name} failed on a batch of {len(feed)}: {error}") from error
            return np.array(self._host(self._exit, len(feed)), dtype=np.float32)

    def _set_batch(self, count: int) -> None:
        if count == self._count:
            return
        entry = self.entry
        shape = (count, *(size or 1 for size in (entry.shape or ())[1:]))
        self._true(self._context.set_input_shape(entry.name, shape), f"the input shape {shape}")
        missing = self._context.infer_shapes()
        if missing:
            raise EngineError(f"{self._name}: TensorRT misses the shapes of {', '.join(missing)}; build the plan again")
        self._count = count

    def _timed_work(self, count: int) -> None:
        if self._events is None:
            self._work(count)
            return
        start, end = self._events
        self._cuda.record(start, self.stream)
        self._work(count)
        self._cuda.record(end, self.stream)

    def _work(self, count: int) -> None:
        if not self._with_graphs:
            self._enqueue(count)
        elif count in self._graphs:
            self._cuda.launch(self._graphs[count], self.stream)
        else:
            self._enqueue(count)  # what a shape needs once may not be recorded
            self._cuda.synchronize(self.stream)
            self._cuda.begin_capture(self.stream)
            try:
                self._enqueue(count)
            finally:
                graph = self._cuda.end_capture(self.stream)
            self._graphs[count] = graph
            self._cuda.launch(graph, self.stream)

    def _enqueue(self, count: int) -> None:
        (into, feed), (out, logits) = ((self._buffers[end.name][0], self._host(end, count)) for end in self._ends_)
        self._cuda.copy_to_device(into, feed.ctypes.data, feed.nbytes, self.stream)
        self._true(self._context.execute_async_v3(self.stream), f"a batch of {count}")
        self._cuda.copy_to_host(logits.ctypes.data, out, logits.nbytes, self.stream)

    def _host(self, end: End, count: int) -> npt.NDArray[Any]:
        return self._buffers[end.name][1][:count]

    def _true(self, done: bool, what: str) -> None:
        if not done:
            raise EngineError(f"TensorRT refuses {what} of {self._name}: {self._messages.reason()}{self._advice()}")

    def _advice(self) -> str:
        if self._messages.mentions("out of memory", "outofmemory"):
            return "; use a smaller batch (`rctk build --max-batch`)"
        return ""

    def _no_memory(self, wanted: int, reason: str) -> str:
        free, total = self._cuda.memory()
        return (
            f"{self._name} does not fit into the device's memory: {wanted / MIB:.0f} MiB wanted, {free / MIB:.0f} of "
            f"{total / MIB:.0f} MiB free ({reason}); use a smaller batch (`rctk build --max-batch`)"
        )

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        with self._cuda.on(self._device):
            yield

    def _forget_graphs(self) -> None:
        while self._graphs:
            self._cuda.destroy_graph(self._graphs.popitem()[1])

    def close(self) -> None:
        """Give everything back, in the order in which TensorRT wants it."""
        with self._on_device():
            del self._context
            self._held.close()
            del self._engine, self._runtime
