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


def stratified_rows(labels: Labels, count: int | None, seed: int) -> Labels:
    """Draw ``count`` rows without replacement, classes in proportion; return them in ascending order.

    Class shares are rounded by largest remainder (ties by ``seed``), so a class may differ by one from its exact
    share. ``None``, or a count of at least all, returns every row.

    Example:
        >>> labels = np.array([0, 0, 0, 0, 1, 1])
        >>> labels[stratified_rows(labels, 3, seed=0)].tolist()
        [0, 0, 1]
    """
    if count is not None and count < 1:
        raise DataError(f"--samples must be at least 1, got {count}")
    if count is None or count >= len(labels):
        return np.arange(len(labels), dtype=np.int64)
    if seed < 0:
        raise DataError(f"--seed must be 0 or more, got {seed}")
    rng = np.random.default_rng(seed)
    classes, sizes = np.unique(labels, return_counts=True)
    take, rest = np.divmod(sizes * count, len(labels))
    ties = rng.permutation(len(classes))
    order = ties[np.argsort(-rest[ties], kind="stable")]
    take[order[: count - int(take.sum())]] += 1
    drawn = [rng.permutation(np.flatnonzero(labels == c))[:n] for c, n in zip(classes, take, strict=True)]
    return np.sort(np.concatenate(drawn)).astype(np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images and labels of one split.

    Attributes:
        name: As the user wrote it, such as ``cifar10:test``.
        images: ``(N, C, H, W)`` float32 in [0, 1].
        labels: ``(N,)`` int64, from 0.
        classes: Names of the classes; empty where the format has none.
        indices: ``(N,)`` position of every image in the whole split, so that a subset can be found again; all in
            order where none are given.
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
        if not len(self.indices):
            object.__setattr__(self, "indices", np.arange(len(self.labels), dtype=np.int64))
        if self.indices.shape != self.labels.shape:
            raise DataError(f"{self.name}: expected one index per image, got {len(self.indices)} for {len(self)}")

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of images and labels; two runs with the same one saw the same data in the same order."""
        digest = hashlib.sha256()
        for array in (self.images, self.labels):
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
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
        """Draw ``count`` images as :func:`stratified_rows` does; they keep their order. ``None`` returns all."""
        rows = stratified_rows(self.labels, count, seed)
        return self if len(rows) == len(self) else self.take(rows)


def check_labels(split: Split, classes: int) -> None:
    """Refuse labels that a model with ``classes`` outputs cannot give; :class:`DataError` names the first."""
    bad = np.flatnonzero((split.labels < 0) | (split.labels >= classes))
    if len(bad):
        first = int(bad[0])
        raise DataError(
            f"{split.name}: image {split.indices[first]} has label {split.labels[first]}, but there are {classes} "
            f"classes, 0 to {classes - 1} ({len(bad)} of {len(split)} labels are outside); choose a data set of these "
            "classes, or renumber its labels from 0"
        )
