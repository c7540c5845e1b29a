"""ONNX Runtime's TensorRT-RTX provider (NvTensorRTRTX), a plug-in with a wheel of its own, for GeForce and RTX GPUs.

Every type comes from the file: float32 layers stay float32, int8 is its Q/DQ. Kernels are compiled on the machine when
the file is opened; ``cache`` keeps them.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from rctk_export.engine import Source
from rctk_export.engines.cache import cache_folder, gpu_facts
from rctk_export.engines.onnxruntime import OnnxRuntimeEngine
from rctk_export.engines.onnxruntime_binding import DeviceBinding
from rctk_export.engines.onnxruntime_provider import RTX, install
from rctk_export.engines.onnxruntime_session import Order, look_into, one_line, open_session
from rctk_export.engines.onnxruntime_wheel import LOADING, ort
from rctk_export.engines.trt_profile import check_batches, check_graph, check_target, digest, shapes
from rctk_kernels.errors import EngineUnavailableError, OptionError

PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class OnnxRuntimeRtx:
    """Runs an ONNX file with ONNX Runtime's TensorRT-RTX provider.

    Attributes:
        device: Number of the GPU, as the provider lists them.
        min_batch: Fewest images of a run; fewer are filled up.
        opt_batch: Images for which kernels are tuned.
        max_batch: Most images of a run; more are cut into chunks.
        workspace_mib: Scratch memory that kernels may ask for, MiB; 0 leaves it to TensorRT-RTX.
        cuda_graph: Record the work of a run once and launch the recording; needs one batch size.
        io_binding: Keep input and output buffers on the GPU between calls; a CUDA graph implies it.
        cache: Folder for compiled kernels; empty keeps nothing. Load only what you built.
    """

    device: int = 0
    min_batch: int = 1
    opt_batch: int = 1
    max_batch: int = 32
    workspace_mib: int = 0
    cuda_graph: bool = False
    io_binding: bool = False
    cache: str = ""

    def __post_init__(self) -> None:
        check_batches(self.min_batch, self.opt_batch, self.max_batch)
        check_graph(self.min_batch, self.max_batch, cuda_graph=self.cuda_graph)
        if min(self.device, self.workspace_mib) < 0:
            raise OptionError("device and workspace_mib must be 0 or more")

    def open(self, source: Source) -> OnnxRuntimeEngine:
        """Load ``source``; :class:`~rctk_kernels.errors.EngineError` where it cannot be had as asked."""
        name, device = self._device()
        entry, _ = look_into(source)
        check_target(source)
        options = {"device_id": str(self.device)}
        if self.workspace_mib:
            options["nv_max_workspace_size"] = str(self.workspace_mib * MIB)
        if self.cuda_graph:
            options["enable_cuda_graph"] = "1"
        options |= shapes(entry, source.input.shape, (self.min_batch, self.opt_batch, self.max_batch), "nv")
        if self.cache:
            options["nv_runtime_cache_path"] = str(self._cache(source, options))
        opened = open_session(source, Order(provider=name, options=options, device=device, optimize=False))
        bound = self.io_binding or self.cuda_graph
        return OnnxRuntimeEngine(
            source,
            opened,
            binding=DeviceBinding(opened.session, opened.entry, opened.exit, "cuda", self.device) if bound else None,
            batches=(self.min_batch, self.max_batch),
            optimized=False,
        )

    def _device(self) -> tuple[str, Any]:
        """Return the provider's name and its device, after registering the plug-in once."""
        plugin, name = _plugin(), RTX
        try:
            name = str(plugin.get_ep_name())
            if not _devices(name):
                ort.register_execution_provider_library(name, plugin.get_library_path())
        except LOADING as error:
            raise EngineUnavailableError(f"{name} did not start: {one_line(error)}; {install(RTX)}") from error
        devices = _devices(name)
        if self.device >= len(devices):
            raise EngineUnavailableError(
                f"{name} lists {len(devices)} GPUs and no number {self.device}; it needs an RTX GPU (Ampere or newer) "
                "and its driver"
            )
        return name, devices[self.device]

    def _cache(self, source: Source, options: dict[str, str]) -> Path:
        place = {"onnxruntime": str(ort.__version__), "provider": _version(), **gpu_facts(self.device)}
        return cache_folder(
            Path(self.cache), source.path.stem, {**place, "file": digest(source), "options": dict(options)}
        )


def _plugin() -> Any:
    if not hasattr(ort, "register_execution_provider_library"):
        raise EngineUnavailableError(
            f"ONNX Runtime {ort.__version__} takes no plug-in providers, the TensorRT-RTX one needs 1.24 or newer; "
            f"{install(RTX)}"
        )
    try:
        return importlib.import_module(PLUGIN)
    except (ImportError, OSError) as error:
        raise EngineUnavailableError(
            f"ONNX Runtime's {RTX} is a plug-in that is not installed here ({one_line(error)}); {install(RTX)}"
        ) from error


def _devices(name: str) -> list[Any]:
    return [device for device in ort.get_ep_devices() if device.ep_name == name]


def _version() -> str:
    """Return the plug-in's packages with their versions, for the key of a cache."""
    return " ".join(f"{name} {version(name)}" for name in packages_distributions().get(PLUGIN, ()))
