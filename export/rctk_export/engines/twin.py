"""The int8 file itself as a differentiable torch module: what an attacker with full knowledge computes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rctk_export.engine import Source
from rctk_export.engines.torch import ModuleEngine


@dataclass(frozen=True, kw_only=True)
class Twin:
    """Runs a quantized ONNX file in PyTorch, with straight-through gradients.

    Attributes:
        mode: ``fast`` (float32; a code may differ from the engine's where a sum lies near a rounding edge) or ``exact``
            (equals the reference engine code for code, several times slower).
        device: Where it runs, such as ``cpu`` or ``cuda:0``; never replaced by another.
        ste: Gradient of rounding outside the clip range: 0 (``clipped``) or 1 (``identity``).
    """

    mode: Literal["fast", "exact"] = "fast"
    device: str = "cpu"
    ste: Literal["clipped", "identity"] = "clipped"

    def open(self, source: Source) -> ModuleEngine:
        """Load ``source``; :class:`~rctk_kernels.errors.EngineUnavailableError` where the device is missing."""
        return ModuleEngine(source, device=self.device, mode=self.mode, ste=self.ste)
