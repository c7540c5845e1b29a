"""What a stress test offers: conditions, each of which makes one or several variants of every image."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from rctk_export.input_spec import FloatNCHW

Indices: TypeAlias = npt.NDArray[np.int64]
"""``(n,)``; positions of images in the whole split. They seed the draws, so that no result depends on batching."""
Origin: TypeAlias = Literal["published", "generated"]
LEVELS = np.float32(255)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One test at one level.

    Attributes:
        test: Such as ``fog`` or ``occlusion``.
        group: ``noise``, ``blur``, ``weather``, ``digital``, ``held out``, or the test's own kind.
        level: Such as ``3`` (a severity) or ``20 % side``.
        variants: Images made of each image; an image survives where all of them are classified correctly.
        origin: ``published`` arrays, or ``generated`` here.
        make: Variant number, images ``(n, C, H, W)`` and their indices to images of the same shape in [0, 1].
    """

    test: str
    group: str
    level: str
    variants: int
    origin: Origin
    make: Callable[[int, FloatNCHW, Indices], FloatNCHW]


class StressTest(Protocol):
    """A row of the table of stress tests: a frozen dataclass of settings."""

    name: ClassVar[str]

    def conditions(self, seed: int) -> Sequence[Condition]:
        """Return the conditions from mild to hard; ``seed`` is the user's."""
        ...


def draws(seed: int, what: str, index: int) -> np.random.Generator:
    """Return the generator of one image in one test: the same whatever batch, subset or severity it appears in."""
    return np.random.default_rng([seed, zlib.crc32(what.encode()), int(index)])


def to_pixels(images: npt.NDArray[np.floating]) -> FloatNCHW:
    """Clip to [0, 1] and round to the 256 levels that a camera or a stored image has."""
    return np.asarray(np.rint(np.clip(images, 0, 1) * LEVELS) / LEVELS, dtype=np.float32)
