"""A labelled part of a data set, in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import DataError

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images and labels of one split.

    Attributes:
        name: As the user wrote it, such as ``cifar10:test``.
        images: ``(N, C, H, W)`` float32 in [0, 1].
        labels: ``(N,)`` int64, from 0.
        classes: Names of the classes; empty where the format has none.
        indices: ``(N,)`` position of every image in the whole split, so that a subset can be found again.
    """

    name: str
    images: FloatNCHW
    labels: Labels
    classes: tuple[str, ...] = ()
    indices: Labels = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.labels.shape != (len(self.images),):
            raise DataError(
                f"{self.name}: expected images (N, C, H, W) and labels (N,), got {self.images.shape} and "
                f"{self.labels.shape}"
            )
        if len(self.indices) != len(self.labels):
            object.__setattr__(self, "indices", np.arange(len(self.labels), dtype=np.int64))

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of images and labels; two runs with the same one saw the same data in the same order."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images).tobytes())
        digest.update(np.ascontiguousarray(self.labels).tobytes())
        return digest.hexdigest()

    def batches(self, size: int) -> Iterator[tuple[FloatNCHW, Labels]]:
        """Yield images and labels in order, ``size`` at a time; the last batch may be smaller."""
        for start in range(0, len(self), size):
            yield self.images[start : start + size], self.labels[start : start + size]

    def take(self, rows: Labels) -> Split:
        """Return the images at positions ``rows``, in that order."""
        return Split(
            name=self.name,
            images=self.images[rows],
            labels=self.labels[rows],
            classes=self.classes,
            indices=self.indices[rows],
        )

    def sample(self, count: int | None, seed: int) -> Split:
        """Draw ``count`` images without replacement, classes in proportion, in their original order.

        Class shares are rounded by largest remainder, so a class may differ by one from its exact share. ``None``, or a count of
        at least all, returns the whole split.
        """
        if count is None or count >= len(self):
            return self
        if count < 1:
            raise DataError(f"--samples must be at least 1, got {count}")
        rng = np.random.default_rng(seed)
        labels, sizes = np.unique(self.labels, return_counts=True)
        exact = sizes * (count / len(self))
        take = np.floor(exact).astype(np.int64)
        ties = rng.permutation(len(labels))
        order = ties[np.argsort(-(exact - take)[ties], kind="stable")]
        take[order[: count - int(take.sum())]] += 1
        rows = [rng.permutation(np.flatnonzero(self.labels == c))[:n] for c, n in zip(labels, take, strict=True)]
        return self.take(np.sort(np.concatenate(rows)))
