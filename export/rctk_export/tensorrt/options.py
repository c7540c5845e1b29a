"""How a plan is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from rctk_kernels.errors import OptionError

Rest = Literal["fp32", "fp16", "bf16"]
Typing = Literal["auto", "strong", "weak"]
Hardware = Literal["none", "ampere-plus", "same-compute-capability"]
MAX_BATCH = 2**16


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Settings of a TensorRT build.

    Attributes:
        precision_rest: Precision of everything that has no Q/DQ.
        typing: ``strong`` takes every type from the file; ``weak`` lets TensorRT 10 choose (11 cannot). ``auto`` is
            strong, but weak on TensorRT 10 where it must be: for DLA, and for ``precision_rest`` without the onnx
            package that writes it into the file.
        min_batch: Fewest images of a call.
        opt_batch: Images for which kernels are tuned: the batch that you will run and measure.
        max_batch: Most images of a call; memory is planned for it.
        workspace_mib: Scratch memory that kernels may ask for, MiB; 0 leaves it to TensorRT, which takes all.
        optimization_level: How long TensorRT looks for fast kernels, 0 to 5.
        hardware: Which other GPUs the plan may run on; costs speed.
        version_compatible: Let other versions of the same major run the plan; costs speed.
        sparsity: Let TensorRT use 2:4 sparse kernels where the weights are sparse.
        dla: DLA core; layers that it cannot run go to the GPU.
        tf32: Let float32 products be rounded to 10 bits of mantissa.
        device: GPU to build on.
    """

    precision_rest: Rest = "fp32"
    typing: Typing = "auto"
    min_batch: int = 1
    opt_batch: int = 1
    max_batch: int = 32
    workspace_mib: int = 0
    optimization_level: int = 3
    hardware: Hardware = "none"
    version_compatible: bool = False
    sparsity: bool = False
    dla: int | None = None
    tf32: bool = False
    device: int = 0

    def __post_init__(self) -> None:
        for name, kind in (("precision_rest", Rest), ("typing", Typing), ("hardware", Hardware)):
            if getattr(self, name) not in get_args(kind):
                known = ", ".join(get_args(kind))
                raise OptionError(f"unknown {name} {getattr(self, name)!r}; choose from {known}")
        if not 1 <= self.min_batch <= self.opt_batch <= self.max_batch <= MAX_BATCH:
            raise OptionError(
                f"batches must be 1 <= min <= opt <= max <= {MAX_BATCH}, got min {self.min_batch}, opt "
                f"{self.opt_batch}, max {self.max_batch}; mend --min-batch, --opt-batch, --max-batch"
            )
        if not 0 <= self.optimization_level <= 5:
            raise OptionError(f"optimization_level must be 0 to 5, got {self.optimization_level}")
        if self.workspace_mib < 0 or self.device < 0 or (self.dla is not None and self.dla < 0):
            raise OptionError("workspace_mib, device and dla must be 0 or more")
        if self.dla is not None and self.min_batch != self.max_batch:
            raise OptionError(
                f"DLA takes one batch size only, got {self.min_batch} to {self.max_batch}; give --min-batch, "
                "--opt-batch and --max-batch the same number"
            )
        if self.dla is not None and self.typing == "auto" and self.precision_rest == "fp32":
            raise OptionError("DLA computes in int8 and fp16 only; add --precision-rest fp16")
