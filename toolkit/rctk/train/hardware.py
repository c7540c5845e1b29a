"""Where a run computes, and in which precision; Lightning Fabric does the rest."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision, Precision

from rctk.machine import available_cpus
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Devices and precision of a training run."""

    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a CUDA GPU where there is one."""
    devices: int = 1
    """How many GPUs, or processes on a CPU, at most one per processor; each takes its share of every batch."""
    strategy: Literal["auto", "ddp"] = "auto"
    """How several devices work together: ddp averages their gradients after every step."""
    precision: Literal["auto", "32", "bf16", "fp16"] = "auto"
    """Of convolutions and matrix products; weights stay float32. auto takes bf16 where the processor has it."""
    channels_last: bool = True
    """Keep the channels of a pixel side by side in memory, which is faster."""

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise OptionError(f"devices must be at least 1, got {self.devices}")

    def resolved(self) -> Self:
        """Return what ``auto`` means on this machine; what it does not have is refused, never replaced."""
        accelerator = self.accelerator
        if accelerator == "auto":
            accelerator = "cuda" if torch.cuda.is_available() else "cpu"
        if accelerator == "cuda" and self.devices > torch.cuda.device_count():
            raise OptionError(
                f"{self.devices} CUDA devices are asked for and torch finds {torch.cuda.device_count()}; lower "
                "devices, or choose another accelerator; see `rctk doctor`"
            )
        processors = len(available_cpus())
        if accelerator == "cpu" and self.devices > processors:
            few = f"{processors} processors; give at most {processors} devices"
            raise OptionError(
                f"{self.devices} processes on the CPU are asked for and this one may use "
                f"{few if processors > 1 else '1 processor; leave devices out'}"
            )
        precision = self.precision
        if precision == "auto":
            precision = "bf16" if native_bf16(accelerator) else "32"
        if precision == "fp16" and accelerator == "cpu":
            raise OptionError("precision fp16 needs a CUDA GPU; choose bf16 or 32 on a CPU")
        strategy = "ddp" if self.devices > 1 else self.strategy
        return replace(self, accelerator=accelerator, precision=precision, strategy=strategy)


def native_bf16(accelerator: str) -> bool:
    """Tell whether the processor multiplies bfloat16 itself; elsewhere bf16 is slower than float32."""
    if accelerator == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())  # noqa: SLF001


class _Autocast(MixedPrecision):
    """Fabric's mixed precision, but images stay float32 and weights are cast anew in every forward pass.

    A budget of 8/255 is five steps of bfloat16 near 1, so images must not be rounded; and a weight that was cast while
    gradients were off, as attacks may do, must not be the one that is trained.
    """

    def convert_input(self, data: Any) -> Any:
        return data

    def forward_context(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device, dtype=self._desired_input_dtype, cache_enabled=False)


def make_fabric(hardware: Hardware) -> Fabric:
    """Return a launched Fabric for settings that are :meth:`Hardware.resolved`."""
    plugin: Precision = Precision()
    if hardware.precision == "bf16":
        plugin = _Autocast("bf16-mixed", hardware.accelerator)
    elif hardware.precision == "fp16":
        plugin = _Autocast("16-mixed", hardware.accelerator)
    fabric = Fabric(
        accelerator=hardware.accelerator, devices=hardware.devices, strategy=hardware.strategy, plugins=[plugin]
    )
    fabric.launch()
    return fabric
