"""How far an adversarial image may be from the original."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class ThreatModel:
    """The budget of an attack on images in [0, 1].

    Attributes:
        norm: ``linf`` or ``l2``.
        eps: Radius; ``8/255`` on the command line.
        grid: ``uint8`` keeps adversarial images on the 256 levels that a camera delivers; ``float`` does not.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: float = 8 / 255
    grid: Literal["float", "uint8"] = "float"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.eps) and self.eps > 0):
            raise OptionError(f"eps must be a positive number such as 8/255, got {self.eps}")
        if self.norm == "linf" and self.eps > 1:
            raise OptionError(
                f"eps is in units of [0, 1] images and {self.eps} is larger than 1; write {self.eps:g}/255?"
            )
        if self.norm not in {"linf", "l2"}:
            raise OptionError(f"norm must be linf or l2, got {self.norm!r}")

    def project(self, x: FloatNCHW, x0: FloatNCHW) -> FloatNCHW:
        """Return the images in the budget around ``x0`` and in [0, 1] that stand for ``x``; both ``(N, C, H, W)``.

        In linf this is the nearest such image. In l2 the difference is scaled to the radius and then clipped to [0, 1]: both
        constraints hold, yet it need not be the very nearest point. On the uint8 grid every pixel is rounded towards
        the original.
        """
        if self.norm == "linf":
            eps = np.float32(self.eps)
            out = np.clip(x, np.maximum(x0 - eps, 0), np.minimum(x0 + eps, 1))
        else:
            delta = (x - x0).astype(np.float64)
            length = np.sqrt((delta**2).sum(axis=(1, 2, 3), keepdims=True))
            out = np.clip(x0 + delta * np.minimum(1.0, self.eps / np.maximum(length, 1e-12)), 0, 1)
        if self.grid == "uint8":
            levels = np.where(out >= x0, np.floor(out * 255 + 1e-4), np.ceil(out * 255 - 1e-4))
            out = levels / 255
        return np.ascontiguousarray(out, dtype=np.float32)
