"""ONNX Runtime's TensorRT provider: the whole file in TensorRT, or an error that names what is not.

Float layers stay float32 unless ``precision_rest`` says otherwise, and int8 comes from the file's Q/DQ alone: no
calibration table is ever given. The provider has no switch for TensorFloat-32, see ``notes``. An engine is built when
the file is opened, which takes minutes; ``cache`` keeps it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from rctk_export.batching import End
from rctk_export.engine import Source
from rctk_export.engines.cache import cache_folder, gpu_facts
from rctk_export.engines.onnxruntime import OnnxRuntimeEngine
from rctk_export.engines.onnxruntime_binding import DeviceBinding
from rctk_export.engines.onnxruntime_provider import TENSORRT, load_tensorrt, need
from rctk_export.engines.onnxruntime_session import Opened, Order, look_into, open_session, some
from rctk_export.engines.onnxruntime_wheel import CUDA, ort
from rctk_export.engines.trt_profile import check_batches, check_graph, check_target, digest, quantized, shapes
from rctk_export.tensorrt.options import Rest
from rctk_kernels.errors import OptionError

Lacking = Literal["refuse", "cuda"]
MIB = 2**20
LEVELS = range(6)
USUAL_LEVEL = 3
TF32_OVERRIDE = "NVIDIA_TF32_OVERRIDE"
TF32 = f"float layers may run in TensorFloat-32, for which the provider has no switch; {TF32_OVERRIDE}=0 forbids it"
DLA = "layers that the DLA cannot run are on the GPU, and the provider does not tell which"


@dataclass(frozen=True, kw_only=True)
class OnnxRuntimeTensorRT:
    """Runs an ONNX file with ONNX Runtime's TensorRT provider.

    Attributes:
        device: Number of the GPU.
        precision_rest: Precision that TensorRT may choose for what has no Q/DQ: ``fp32``, ``fp16``, ``bf16``.
        min_batch: Fewest images of a run; fewer are filled up.
        opt_batch: Images for which kernels are tuned: the batch that you will run and measure.
        max_batch: Most images of a run; more are cut into chunks.
        workspace_mib: Scratch memory that kernels may ask for, MiB; 0 leaves it to TensorRT.
        optimization_level: How long TensorRT looks for fast kernels, 0 to 5.
        sparsity: Let TensorRT use 2:4 sparse kernels where the weights are sparse.
        dla: DLA core; needs ``precision_rest=fp16`` or an int8 file.
        cuda_graph: Record the work of a run once and launch the recording; needs one batch size.
        io_binding: Keep input and output buffers on the GPU between calls; a CUDA graph implies it.
        cache: Folder for built engines and the timing cache; empty keeps nothing. Load only what you built.
        lacking: What becomes of operators that TensorRT lacks: ``refuse`` the file, or run them in the ``cuda``
            provider, named in the notes. Never on the CPU.
    """

    device: int = 0
    precision_rest: Rest = "fp32"
    min_batch: int = 1
    opt_batch: int = 1
    max_batch: int = 32
    workspace_mib: int = 0
    optimization_level: int = USUAL_LEVEL
    sparsity: bool = False
    dla: int | None = None
    cuda_graph: bool = False
    io_binding: bool = False
    cache: str = ""
    lacking: Lacking = "refuse"

    def __post_init__(self) -> None:
        for name, kind in (("precision_rest", Rest), ("lacking", Lacking)):
            if getattr(self, name) not in get_args(kind):
                raise OptionError(
                    f"unknown {name} {getattr(self, name)!r}; choose from {', '.join(map(str, get_args(kind)))}"
                )
        check_batches(self.min_batch, self.opt_batch, self.max_batch)
        check_graph(self.min_batch, self.max_batch, cuda_graph=self.cuda_graph)
        if self.optimization_level not in LEVELS:
            raise OptionError(f"optimization_level must be 0 to 5, got {self.optimization_level}")
        if min(self.device, self.workspace_mib, self.dla or 0) < 0:
            raise OptionError("device, workspace_mib and dla must be 0 or more")

    def options(self, entry: End, sizes: tuple[int, ...], *, int8: bool) -> dict[str, str]:
        """Return the provider's own options.

        Args:
            entry: Input of the graph.
            sizes: ``(C, H, W)`` of its images.
            int8: Whether the file holds Q/DQ.
        """
        if self.dla is not None and not (int8 or self.precision_rest == "fp16"):
            raise OptionError("DLA computes in int8 and fp16 only; add precision_rest=fp16, or give an int8 file")
        wanted = {"device_id": str(self.device)}
        switches = {
            "trt_int8_enable": int8,
            "trt_fp16_enable": self.precision_rest == "fp16",
            "trt_bf16_enable": self.precision_rest == "bf16",
            "trt_sparsity_enable": self.sparsity,
            "trt_cuda_graph_enable": self.cuda_graph,
            "trt_dla_enable": self.dla is not None,
        }
        wanted |= {key: "1" for key, on in switches.items() if on}
        if self.dla is not None:
            wanted["trt_dla_core"] = str(self.dla)
        if self.workspace_mib:
            wanted["trt_max_workspace_size"] = str(self.workspace_mib * MIB)
        if self.optimization_level != USUAL_LEVEL:
            wanted["trt_builder_optimization_level"] = str(self.optimization_level)
        return wanted | shapes(entry, sizes, (self.min_batch, self.opt_batch, self.max_batch), "trt")

    def open(self, source: Source) -> OnnxRuntimeEngine:
        """Load ``source``; :class:`~rctk_kernels.errors.EngineError` where it cannot be had as asked."""
        need(TENSORRT)
        version = load_tensorrt()
        entry, _ = look_into(source)
        check_target(source)
        options = self.options(entry, source.input.shape, int8=quantized(source.path))
        if self.cache:
            options |= self._cache(source, options, version)
        cuda = {"device_id": str(self.device), "use_tf32": "0"}
        order = Order(
            provider=TENSORRT,
            options=options,
            rest=((CUDA, cuda),) if self.lacking == "cuda" else (),
            optimize=False,  # TensorRT takes the graph as it is written
            remedy="export without those operators, or let the CUDA provider run them with lacking=cuda",
        )
        opened = open_session(source, order)
        bound = self.io_binding or self.cuda_graph
        return OnnxRuntimeEngine(
            source,
            opened,
            binding=DeviceBinding(opened.session, opened.entry, opened.exit, "cuda", self.device) if bound else None,
            batches=(self.min_batch, self.max_batch),
            notes=self._notes(opened),
            optimized=False,
        )

    def _cache(self, source: Source, options: dict[str, str], tensorrt: str) -> dict[str, str]:
        place = {"onnxruntime": str(ort.__version__), "tensorrt": tensorrt, **gpu_facts(self.device)}
        root = Path(self.cache)
        engines = cache_folder(root, source.path.stem, {**place, "file": digest(source), "options": options})
        return {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(engines),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(cache_folder(root, "timing", place)),
        }

    def _notes(self, opened: Opened) -> tuple[str, ...]:
        strangers = opened.placement.get(CUDA, ())
        notes = [f"TensorRT lacks {len(strangers)} nodes, which CUDA runs: {some(strangers)}"] if strangers else []
        notes += [] if os.environ.get(TF32_OVERRIDE) == "0" else [TF32]
        return (*notes, *([DLA] if self.dla is not None else []))
