"""How far an adversarial image may be from the original."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from rctk.projection_l1 import shrink_l1
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import OptionError

F = TypeVar("F", np.float32, np.float64)
Norm: TypeAlias = Literal["linf", "l2", "l1"]
Floats = npt.NDArray[np.float64]
LEVELS = 255
_SLACK = 1e-6
"""Share of ``eps`` that rounding may add, so that 8/255 written in float32 still allows eight levels."""
_SNAP = 1.6e-5
"""In levels: a pixel this near to a level is that level; twice half an ulp of float32 below 255 is 1.53e-5."""
_HAIR = 1e-9
"""In levels: float64 rounding when a scaled pixel should be a level."""


@dataclass(frozen=True, kw_only=True)
class ThreatModel:
    """The budget of an attack on images in [0, 1].

    Attributes:
        norm: ``linf``, ``l2`` or ``l1``.
        eps: Radius; ``8/255`` on the command line.
        grid: ``uint8`` keeps adversarial images on the 256 levels that a camera delivers; ``float`` does not.
    """

    norm: Norm = "linf"
    eps: float = 8 / 255
    grid: Literal["float", "uint8"] = "float"

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise OptionError(f"norm must be linf, l2 or l1, got {self.norm!r}")
        if self.grid not in {"float", "uint8"}:
            raise OptionError(f"grid must be float or uint8, got {self.grid!r}")
        if not (math.isfinite(self.eps) and self.eps > 0):
            raise OptionError(f"eps must be a positive number such as 8/255, got {self.eps}")
        if self.norm == "linf" and self.eps > 1:
            raise OptionError(
                f"eps is in units of [0, 1] images and {self.eps} is larger than 1; write {self.eps:g}/255?"
            )
        if self.grid == "uint8" and self.eps * LEVELS * (1 + _SLACK) < 1:
            raise OptionError(
                f"eps {self.eps:g} is less than a level of the uint8 grid: no pixel could change; use 1/255 or more"
            )

    def project(self, x: FloatNCHW, x0: FloatNCHW) -> FloatNCHW:
        """Return the images in the budget around ``x0`` and in [0, 1] that stand for ``x``; both ``(N, C, H, W)``.

        In linf and l1 this is the nearest such image. In l2 the difference is scaled to the radius and then clipped to
        [0, 1]: both constraints hold, yet it need not be the very nearest point. On the uint8 grid linf again takes the
        nearest level in the budget, and l2 and l1 round every pixel towards the original. An original from a camera is
        on the grid; where one is not, l2 and l1 leave a pixel that reaches no level at the original's value.

        Example:
            >>> x0 = np.zeros((1, 1, 1, 2), dtype=np.float32)
            >>> ThreatModel(eps=0.25).project(x0 + np.float32([0.1, 0.7]), x0)
            array([[[[0.1 , 0.25]]]], dtype=float32)
        """
        out: FloatNCHW | Floats
        if self.grid == "uint8":
            out = _linf_levels(x, x0, self.eps) if self.norm == "linf" else _levels_towards(x, x0, self.eps, self.norm)
        else:
            out = _linf(x, x0, self.eps) if self.norm == "linf" else _real(x, x0, self.eps, self.norm)
        return np.ascontiguousarray(out, dtype=np.float32)


def _linf(x: FloatNCHW, x0: FloatNCHW, eps: float) -> FloatNCHW:
    radius = np.float32(eps)
    return np.clip(x, np.maximum(x0 - radius, 0), np.minimum(x0 + radius, 1))


def _real(x: FloatNCHW, x0: FloatNCHW, eps: float, norm: Norm) -> FloatNCHW:
    """Project in l2 or l1 and round to float32 so that no pixel ends farther from the original than it was."""
    centre = x0.astype(np.float64)
    out = np.clip(centre + _shortened(x - centre, centre, eps, norm, 1.0), 0, 1)
    rounded = out.astype(np.float32)
    beyond = np.where(out >= centre, rounded > out, rounded < out)
    return np.where(beyond, np.nextafter(rounded, x0), rounded)


def _linf_levels(x: FloatNCHW, x0: FloatNCHW, eps: float) -> FloatNCHW:
    """Take the nearest level; in float32, which is exact on the grid and off by 6e-8 elsewhere."""
    unit, reach = np.float32(LEVELS), np.float32(eps * LEVELS * (1 + _SLACK))
    centre = _levels(x0.astype(np.float32, copy=False))
    low = np.maximum(np.ceil(centre - reach), np.float32(0))
    high = np.minimum(np.floor(centre + reach), unit)
    out: FloatNCHW = np.clip(np.rint(x.astype(np.float32, copy=False) * unit), low, high) / unit
    return out


def _levels_towards(x: FloatNCHW, x0: FloatNCHW, eps: float, norm: Norm) -> Floats:
    centre = _levels(x0.astype(np.float64))
    delta = _levels(x.astype(np.float64)) - centre
    out = np.clip(centre + _shortened(delta, centre, eps * LEVELS, norm, LEVELS), 0, LEVELS)
    level = np.where(out >= centre, np.floor(out + _HAIR), np.ceil(out - _HAIR))
    moved = (level - centre) * (out - centre) > 0  # else no level lies between the original and ``out``
    return np.where(moved, level / LEVELS, x0)


def _levels(images: npt.NDArray[F]) -> npt.NDArray[F]:
    """Return pixels in units of levels; whole numbers where they are on the grid."""
    exact = images * images.dtype.type(LEVELS)
    whole = np.rint(exact)
    return np.where(np.abs(exact - whole) < _SNAP, whole, exact)


def _shortened(delta: Floats, centre: Floats, radius: float, norm: Norm, top: float) -> Floats:
    """Bring differences into the ball; in l1 also into the box ``0 .. top``, as one projection onto both."""
    if norm == "l2":
        return _scaled(delta, radius)
    room = np.where(delta > 0, top - centre, centre)
    return shrink_l1(delta, room, radius * (1 + _SLACK / 2))


def _scaled(delta: Floats, radius: float) -> Floats:
    """Shorten the differences whose l2 norm is above ``radius``, image by image, to half the slack above it."""
    length = np.sqrt((delta**2).sum(axis=(1, 2, 3), keepdims=True))
    share = radius * (1 + _SLACK / 2) / np.maximum(length, 1e-300)
    return np.where(length > radius * (1 + _SLACK), delta * share, delta)
