"""ONNX Runtime's CUDA provider: the whole file on an NVIDIA GPU, or an error that names what is not.

Float layers compute in float32: TensorFloat-32, which the provider switches on by itself, is off. The provider has no
int8 convolutions: in an int8 file Q and DQ run as nodes between float32 layers, so it shows what the file answers and
nothing about its speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from rctk_export.engine import Source
from rctk_export.engines.onnxruntime import OnnxRuntimeEngine
from rctk_export.engines.onnxruntime_binding import DeviceBinding
from rctk_export.engines.onnxruntime_provider import need
from rctk_export.engines.onnxruntime_session import Order, open_session
from rctk_export.engines.onnxruntime_wheel import CUDA
from rctk_kernels.errors import OptionError

Search = Literal["exhaustive", "heuristic", "default"]
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class OnnxRuntimeCuda:
    """Runs an ONNX file with ONNX Runtime on an NVIDIA GPU.

    Attributes:
        device: Number of the GPU.
        batch: Images of every run, larger batches are cut and smaller ones filled up; 0 takes any number.
        conv_search: How cuDNN chooses its convolutions: ``exhaustive`` times all of them for every new shape,
            ``heuristic`` guesses, ``default`` takes one that always works.
        tf32: Round float32 products to 10 bits of mantissa, as the provider does by itself.
        nhwc: Run convolutions with channels last.
        memory_mib: Most memory of the provider's arena, MiB; 0 sets no limit.
        cuda_graph: Record the work of a run once and launch the recording; needs ``batch``.
        io_binding: Keep input and output buffers on the GPU between calls; one thread at a time may then call
            ``predict``. A CUDA graph implies it.
        optimize: Fuse operators.
    """

    device: int = 0
    batch: int = 0
    conv_search: Search = "exhaustive"
    tf32: bool = False
    nhwc: bool = False
    memory_mib: int = 0
    cuda_graph: bool = False
    io_binding: bool = False
    optimize: bool = True

    def __post_init__(self) -> None:
        if min(self.device, self.batch, self.memory_mib) < 0:
            raise OptionError("device, batch and memory_mib must be 0 or more")
        if self.conv_search not in get_args(Search):
            raise OptionError(f"unknown conv_search {self.conv_search!r}; choose from {', '.join(get_args(Search))}")
        if self.cuda_graph and not self.batch:
            raise OptionError("a CUDA graph is recorded for one batch size; add batch=N, the images of every run")

    def options(self) -> dict[str, str]:
        """Return the provider's own options, all of which ONNX Runtime knows since 1.18."""
        wanted = {
            "device_id": str(self.device),
            "use_tf32": str(int(self.tf32)),
            "cudnn_conv_algo_search": self.conv_search.upper(),
        }
        if self.memory_mib:
            wanted |= {"gpu_mem_limit": str(self.memory_mib * MIB), "arena_extend_strategy": "kSameAsRequested"}
        extras = {"enable_cuda_graph": self.cuda_graph, "prefer_nhwc": self.nhwc}
        return wanted | {key: "1" for key, on in extras.items() if on}

    def open(self, source: Source) -> OnnxRuntimeEngine:
        """Load ``source``; :class:`~rctk_kernels.errors.EngineError` where it cannot be had as asked."""
        need(CUDA)
        order = Order(
            provider=CUDA,
            options=self.options(),
            optimize=self.optimize,
            remedy="use a file for --target tensorrt, or --engine onnxruntime",
        )
        opened = open_session(source, order)
        bound = self.io_binding or self.cuda_graph
        return OnnxRuntimeEngine(
            source,
            opened,
            binding=DeviceBinding(opened.session, opened.entry, opened.exit, "cuda", self.device) if bound else None,
            batches=(self.batch, self.batch) if self.batch else (1, None),
            notes=(FLOAT_BETWEEN,) if source.role == "int8" else (),
            optimized=self.optimize,
        )


FLOAT_BETWEEN = "the CUDA provider computes float32 between Q and DQ: answers are those of the file, its speed is not"
