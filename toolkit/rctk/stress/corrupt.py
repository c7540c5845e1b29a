"""Applies a corruption by name, image by image."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt

from rctk.stress import CORRUPTIONS
from rctk.stress.condition import Condition, Indices, draws, to_pixels
from rctk.stress.published import Published
from rctk_export.input_spec import FloatNCHW
from rctk_export.registry import unknown
from rctk_kernels.errors import OptionError

T = TypeVar("T")
Real: TypeAlias = npt.NDArray[np.floating]
Corruption: TypeAlias = Callable[[FloatNCHW, int, np.random.Generator], Real]
"""Images ``(N, C, H, W)`` in [0, 1], severity 1 to 5 and a generator to images of that shape, maybe beyond [0, 1]."""
SEVERITIES = (1, 2, 3, 4, 5)
GROUPS = ("noise", "blur", "weather", "digital", "held out")


def names(words: Sequence[str]) -> list[str]:
    """Expand ``all``, ``benchmark`` (the 15 of mCE and mPC), a group such as ``blur``, and names, in table order.

    Example:
        >>> names(["fog", "digital"])
        ['fog', 'contrast', 'elastic_transform', 'pixelate', 'jpeg_compression']
    """
    chosen: set[str] = set()
    for word in (word.strip().replace("-", "_") for word in words):
        sets = {"all": set(CORRUPTIONS), "benchmark": {n for n, row in CORRUPTIONS.items() if row.where != "held out"}}
        sets |= {g.replace(" ", "_"): {n for n, row in CORRUPTIONS.items() if row.where == g} for g in GROUPS}
        if word not in sets and word not in CORRUPTIONS:
            raise unknown("corruption", word, [*sets, *CORRUPTIONS], where="rctk list corruptions")
        chosen |= sets.get(word, {word})
    return [name for name in CORRUPTIONS if name in chosen]


@cache
def load_corruption(name: str) -> Corruption:
    """Import and return the function of a corruption."""
    if name not in CORRUPTIONS:
        raise unknown("corruption", name, list(CORRUPTIONS), where="rctk list corruptions")
    module, _, function = CORRUPTIONS[name].function.partition(":")
    return cast("Corruption", getattr(importlib.import_module(module), function))


def corrupt(images: FloatNCHW, name: str, severity: int, *, seed: int, indices: Indices) -> FloatNCHW:
    """Return corrupted images on the 256 levels of stored pixels.

    Args:
        images: ``(N, C, H, W)`` in [0, 1].
        name: A key of :data:`rctk.stress.CORRUPTIONS`.
        severity: 1 to 5.
        seed: Of the user.
        indices: ``(N,)``; image ``i`` of the split gets the same draws at every severity and in every batch.
    """
    check_severity(severity)
    function = load_corruption(name)
    out = np.empty_like(images, dtype=np.float32)
    for row, index in enumerate(indices):
        out[row] = to_pixels(function(images[row : row + 1], severity, draws(seed, name, index)))[0]
    return out


def corruption_conditions(
    chosen: Sequence[str], severities: Sequence[int], seed: int, published: Published | None
) -> list[Condition]:
    """Return one condition per type and severity: published arrays where there are any, else generated images."""
    for severity in severities:
        check_severity(severity)
    return [_condition(name, severity, seed, published) for name in chosen for severity in severities]


def _condition(name: str, severity: int, seed: int, published: Published | None) -> Condition:
    arrays = published if published is not None and name in published.names else None

    def make(_: int, images: FloatNCHW, indices: Indices) -> FloatNCHW:
        if arrays is not None:
            return arrays.images(name, severity, indices, images.shape[1:])
        return corrupt(images, name, severity, seed=seed, indices=indices)

    return Condition(
        test=name,
        group=CORRUPTIONS[name].where,
        level=str(severity),
        variants=1,
        origin="generated" if arrays is None else "published",
        make=make,
    )


def check_severity(severity: int) -> None:
    """Refuse a severity beyond 1 to 5."""
    if severity not in SEVERITIES:
        raise OptionError(f"a severity is 1, 2, 3, 4 or 5, got {severity}")


def by_size(images: Real, small: Sequence[T], large: Sequence[T], severity: int) -> T:
    """Choose the published constants for 32x32 or for 224x224 images, and of those the one of ``severity``.

    Sides up to 64 pixels count as small. Lengths in pixels are not scaled in between.
    """
    return (small if min(images.shape[2:]) <= 64 else large)[severity - 1]
