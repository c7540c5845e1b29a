"""What goes into a classifier: shape, normalisation, and whether the product feeds floats or 8-bit pixels."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rctk_export.registry import number
from rctk_kernels.errors import OptionError

FloatNCHW = npt.NDArray[np.float32]
"""Images ``(N, C, H, W)`` in [0, 1]."""
FloatNK = npt.NDArray[np.float32]
"""Logits ``(N, K)``."""


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """Shape and normalisation of a classifier's input.

    Images are in [0, 1] everywhere in rctk; the exported graph computes ``(image - mean) / std`` itself.

    Attributes:
        channels: 1 or more.
        height: Pixels.
        width: Pixels.
        mean: One value per channel in units of [0, 1]; empty for 0.
        std: One positive value per channel; empty for 1. A network trained on 0..255 has ``std`` 1/255.
        dtype: What the product feeds: ``float32`` images in [0, 1], or ``uint8`` pixels.
    """

    channels: int
    height: int
    width: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    dtype: Literal["float32", "uint8"] = "float32"

    def __post_init__(self) -> None:
        if min(self.channels, self.height, self.width) < 1:
            raise OptionError(f"an input needs positive sizes, got {self.channels}x{self.height}x{self.width}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values and len(values) != self.channels:
                raise OptionError(f"{name} has {len(values)} values for {self.channels} channels; give one per channel")
            if not all(math.isfinite(value) for value in values):
                raise OptionError(f"{name} must hold finite numbers, got {values}")
        if any(value <= 0 for value in self.std):
            raise OptionError(f"std must be positive in every channel, got {self.std}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)``."""
        return self.channels, self.height, self.width

    @property
    def normalises(self) -> bool:
        """Whether mean and std change the image at all."""
        return any(value != 0 for value in self.mean) or any(value != 1 for value in self.std)

    def mean_std(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return mean and std as ``(C, 1, 1)`` float32 arrays, with the defaults filled in."""
        mean = np.asarray(self.mean or (0.0,) * self.channels, dtype=np.float32)
        std = np.asarray(self.std or (1.0,) * self.channels, dtype=np.float32)
        return mean.reshape(-1, 1, 1), std.reshape(-1, 1, 1)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values; :meth:`from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InputSpec:
        """Read what :meth:`as_dict` wrote."""
        known = dict(values)
        for name in ("mean", "std"):
            known[name] = tuple(float(value) for value in known.get(name, ()))
        try:
            return cls(**known)
        except TypeError as error:
            raise OptionError(f"the input spec has fields that this version does not know: {sorted(known)}") from error

    @classmethod
    def parse(cls, shape: str, mean: str | None = None, std: str | None = None) -> InputSpec:
        """Read the flags ``--input 3x32x32 --mean 0.5,0.5,0.5 --std 1/255``; one value stands for all channels.

        Example:
            >>> InputSpec.parse("3x32x32", "0", "1/255").std == (1 / 255,) * 3
            True
        """
        match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", shape.strip().lower())
        if match is None:
            raise OptionError(f"--input must read CHANNELSxHEIGHTxWIDTH such as 3x32x32, got {shape!r}")
        channels, height, width = (int(group) for group in match.groups())
        return cls(
            channels=channels, height=height, width=width, mean=_values(mean, channels), std=_values(std, channels)
        )


def _values(text: str | None, channels: int) -> tuple[float, ...]:
    if text is None:
        return ()
    values = tuple(number(part) for part in re.split(r"[,\s]+", text.strip()) if part)
    return values * channels if len(values) == 1 else values
