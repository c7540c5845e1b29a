"""torch-tensorrt: the ONNX file as a torch module, compiled into TensorRT as a whole and, with ``cache``, kept.

Types come from the graph (strong typing, also where torch-tensorrt could choose): float32 without TensorFloat-32,
float16 between images and logits where asked for, int8 from the file's Q/DQ. What torch-tensorrt would leave to PyTorch
is an error. A kept module is loaded only for the same file, versions, GPU and settings. Versions that do not belong
together are refused before one of them is imported.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from rctk_export.engine import Source
from rctk_export.engines.torch_tensorrt_pair import versions
from rctk_export.engines.trt_profile import check_batches, check_target
from rctk_kernels.errors import OptionError

if TYPE_CHECKING:
    from rctk_export.engines.torch_tensorrt_engine import TorchTensorRTEngine

Rest = Literal["fp32", "fp16"]
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class TorchTensorRT:
    """Compiles an ONNX file with torch-tensorrt and runs it.

    Attributes:
        device: Number of the GPU.
        precision_rest: ``fp32``, or ``fp16`` for everything between images and logits that is not int8.
        min_batch: Fewest images of a run; fewer are filled up.
        opt_batch: Images for which kernels are tuned: the batch that you will run and measure.
        max_batch: Most images of a run; more are cut into chunks.
        workspace_mib: Scratch memory that kernels may ask for, MiB; 0 leaves it to TensorRT.
        optimization_level: How long TensorRT looks for fast kernels, 0 to 5.
        sparsity: Let TensorRT use 2:4 sparse kernels where the weights are sparse.
        cache: Folder for compiled modules; empty compiles on every opening. Load only what you compiled.
    """

    device: int = 0
    precision_rest: Rest = "fp32"
    min_batch: int = 1
    opt_batch: int = 1
    max_batch: int = 32
    workspace_mib: int = 0
    optimization_level: int = 3
    sparsity: bool = False
    cache: str = ""

    def __post_init__(self) -> None:
        if self.precision_rest not in get_args(Rest):
            raise OptionError(f"unknown precision_rest {self.precision_rest!r}; choose from fp32, fp16")
        check_batches(self.min_batch, self.opt_batch, self.max_batch)
        if not 0 <= self.optimization_level <= 5:
            raise OptionError(f"optimization_level must be 0 to 5, got {self.optimization_level}")
        if min(self.device, self.workspace_mib) < 0:
            raise OptionError("device and workspace_mib must be 0 or more")

    def options(self, known: Collection[str]) -> dict[str, Any]:
        """Return the settings of ``torch_tensorrt.dynamo.compile``.

        Args:
            known: Names of its parameters: 2.8 to 2.12 must be told to take types from the graph, newer ones always do.
        """
        return {
            "require_full_compilation": True,
            "min_block_size": 1,
            "disable_tf32": True,
            "workspace_size": self.workspace_mib * MIB,
            "optimization_level": self.optimization_level,
            "sparse_weights": self.sparsity,
            **({"use_explicit_typing": True} if "use_explicit_typing" in known else {}),
        }

    def open(self, source: Source) -> TorchTensorRTEngine:
        """Load ``source``; :class:`~rctk_kernels.errors.EngineError` where it cannot be had as asked."""
        pair = versions()
        check_target(source)
        from rctk_export.engines.torch_tensorrt_engine import TorchTensorRTEngine  # noqa: PLC0415  # imports torch

        return TorchTensorRTEngine(source, self, pair)
