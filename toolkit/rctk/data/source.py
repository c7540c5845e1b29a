"""What a reader returns: the labels of a whole split, and the pixels of some of its images when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rctk.data.split import Labels
from rctk_export.input_spec import FloatNCHW, InputSpec
from rctk_kernels.errors import DataError

Pixels = npt.NDArray[Any]
"""``(N, C, H, W)``: uint8, or floats in [0, 1]."""
MAX_BYTES = 16 * 2**30
"""A compressed file that claims to unpack to more is refused before it is unpacked."""


class Request(NamedTuple):
    """Where a reader looks, for which split, and what the model takes (None where that is not known)."""

    path: Path
    split: str
    input: InputSpec | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A split that was found.

    Attributes:
        where: File or folder, for messages.
        labels: ``(N,)`` int64, of all images.
        load: Returns the pixels of the images at the given rows, in that order.
        classes: Names of the classes; empty where the format has none.
    """

    where: Path
    labels: Labels
    load: Callable[[Labels], Pixels]
    classes: tuple[str, ...] = ()


def array_source(where: Path, images: Pixels, labels: npt.NDArray[Any], classes: tuple[str, ...] = ()) -> Source:
    """Wrap arrays that are in memory already; their values are checked whole, also where few of them are used."""
    numbers = whole_labels(where, labels)
    if len(images) != len(numbers):
        raise DataError(f"{where}: {len(images)} images but {len(numbers)} labels; write one label per image")
    _check_range(where, images)

    def load(rows: Labels) -> Pixels:
        return images if len(rows) == len(images) else images[rows]

    return Source(where=where, labels=numbers, load=load, classes=classes)


def whole_labels(where: Path, labels: npt.NDArray[Any]) -> Labels:
    """Return ``(N,)`` int64 labels from ``(N,)`` or ``(N, 1)`` integers that are not negative."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{where}: labels are {labels.dtype} of shape {labels.shape}; write class numbers from 0 as integers (N,)"
        )
    numbers = labels.astype(np.int64)
    if len(numbers) and numbers.min() < 0:
        first = int(np.flatnonzero(numbers < 0)[0])
        raise DataError(f"{where}: label {labels[first]} of image {first} is no class number; count classes from 0")
    return numbers


def _check_range(where: Path, images: Pixels) -> None:
    if images.dtype == np.uint8 or not images.size:
        return
    if images.dtype.kind != "f":
        raise DataError(f"{where}: images are {images.dtype}; write uint8 in 0..255 or float32 in [0, 1]")
    low, high = float(images.min()), float(images.max())
    if np.isnan(low):  # min() carries a NaN through
        first = int(np.flatnonzero(np.isnan(images).reshape(len(images), -1).any(axis=1))[0])
        raise DataError(f"{where}: image {first} holds NaN; write finite values in [0, 1]")
    if low < 0 or high > 1:
        raise DataError(
            f"{where}: images are in [{low:.6g}, {high:.6g}], expected [0, 1]; divide by the largest value, undo the "
            "normalisation (it belongs to the model: --mean, --std), or write uint8"
        )


def unit_images(pixels: Pixels) -> FloatNCHW:
    """Return float32 images in [0, 1], C-contiguous; uint8 is divided by 255 without a second copy.

    Example:
        >>> unit_images(np.array([[[[0, 51, 255]]]], dtype=np.uint8))
        array([[[[0. , 0.2, 1. ]]]], dtype=float32)
    """
    if pixels.dtype != np.uint8:
        return np.ascontiguousarray(pixels, dtype=np.float32)
    images = np.empty(pixels.shape, dtype=np.float32)
    np.divide(pixels, np.float32(255), out=images, dtype=np.float32)
    return images


@contextmanager
def refuse_damage(where: Path, what: str, remedy: str = "get it again from its source") -> Iterator[None]:
    """Turn whatever a parser raises on a damaged file into :class:`DataError`.

    NumPy, Pillow and the standard library raise some twenty kinds of exceptions on damaged files, and other versions
    of them raise others, so no list of kinds would be whole.
    """
    try:
        yield
    except DataError:
        raise
    except (FileNotFoundError, PermissionError) as error:
        raise DataError(f"cannot read {where}: {error.strerror}") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(f"{where} is no readable {what} ({reason}); {remedy}") from error


def check_unpacked(where: Path, size_bytes: int) -> None:
    """Refuse what a compressed file claims to hold if it is too much for any data set that rctk reads."""
    if size_bytes > MAX_BYTES:
        raise DataError(
            f"{where}: it claims to unpack to {size_bytes / 2**30:.1f} GiB, more than the {MAX_BYTES >> 30} GiB that "
            "rctk reads into memory; get the file again from its source, or store fewer images"
        )


def check_only_split(where: Path, split: str) -> None:
    """Accept a file or folder that has no splits as ``test`` or under its own name, so that no two splits are one."""
    if split not in {"test", where.stem}:
        raise DataError(
            f"{where} holds one set of images and no split {split!r}; leave out ':{split}', or store the splits apart"
        )
