"""Counts every image that the model under test classifies, and refuses answers that are no logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from rctk.attacks.attack import Predict, Rows
from rctk.data.split import Labels, Split
from rctk_export.input_spec import FloatNCHW, FloatNK
from rctk_kernels.errors import DataError, EngineError, OptionError


class Counted:
    """A ``predict`` that is called in batches of ``batch_size`` and books each query to its image.

    Attributes:
        batch_size: Most images in one call of ``predict``.
        queries: ``(N,)`` int64; queries about each image of the split.
        unbooked: Queries whose images an attack did not name.
        reference: What stands beside ``predict`` for attacks on differences, else None; it is not counted here.
        scores: What score attacks read in its place, see :class:`rctk.evaluation.scores.Scored`, else None.

    Args:
        predict: Images in [0, 1] to logits.
        samples: ``N``, size of the split.
        batch_size: See above.
    """

    def __init__(self, predict: Predict, samples: int, batch_size: int) -> None:
        if batch_size < 1:
            raise OptionError(f"batch_size must be at least 1, got {batch_size}")
        self.queries: npt.NDArray[np.int64] = np.zeros(samples, dtype=np.int64)
        self.unbooked = 0
        self.reference: Predict | None = getattr(predict, "reference", None)
        self.scores: Predict | None = getattr(predict, "scores", None)
        self._predict = predict
        self.batch_size = batch_size
        self._group: Rows = np.arange(samples)
        self._named: Rows | None = None

    @property
    def total(self) -> int:
        """All queries so far."""
        return int(self.queries.sum()) + self.unbooked

    def about(self, group: Rows) -> Counted:
        """Say which images of the split, ``(n,)``, the positions in later calls of :meth:`book` refer to."""
        self._group, self._named = group, None
        return self

    @contextmanager
    def reading_scores(self) -> Iterator[None]:
        """Ask ``scores``, where there is one, until the block ends; its answers count as queries too."""
        own = self._predict
        self._predict = self.scores or own
        try:
            yield
        finally:
            self._predict = own

    def book(self, rows: Rows) -> None:
        """Say which images of the group the next query is about."""
        self._named = self._group[rows]

    def __call__(self, images: FloatNCHW) -> FloatNK:
        """Return logits ``(n, K)``; :class:`EngineError` where they have another shape or hold NaN."""
        named = self._group if self._named is None else self._named
        self._named = None
        if len(named) == len(images):
            np.add.at(self.queries, named, 1)
        else:
            self.unbooked += len(images)
        size = self.batch_size
        if len(images) <= size:
            return _checked(self._predict(images), len(images))
        starts = range(0, len(images), size)
        parts = [images[start : start + size] for start in starts]
        return np.concatenate([_checked(self._predict(part), len(part)) for part in parts])

    def classes(self, images: FloatNCHW, rows: Rows) -> Labels:
        """Return the predicted class of ``images``, candidates for the images ``rows`` of the split; ``(n,)``."""
        if not len(images):
            return np.empty(0, dtype=np.int64)
        return _top(self.about(rows)(images))


def _checked(logits: FloatNK, count: int) -> FloatNK:
    if logits.ndim != 2 or len(logits) != count or logits.shape[1] < 2:
        raise EngineError(f"expected logits ({count}, K) of two or more classes, got an array {logits.shape}")
    if np.isnan(logits).any():
        raise EngineError(
            f"the model answered NaN for {int(np.isnan(logits).any(axis=1).sum())} of {count} images; check its "
            "weights and its scales, for example with `rctk inspect`"
        )
    return logits


def clean_classes(counted: Counted, split: Split) -> Labels:
    """Check the split against the model and return the predicted classes of its images, ``(N,)``."""
    images, labels = split.images, split.labels
    if not len(split):
        raise DataError(f"{split.name} holds no images")
    if images.dtype != np.float32 or not (images.min() >= 0 and images.max() <= 1):  # false for NaN as well
        raise DataError(
            f"{split.name}: expected float32 images in [0, 1], got {images.dtype} from {images.min()} to "
            f"{images.max()}; normalisation belongs inside the model"
        )
    logits = counted.about(np.arange(len(split)))(images)
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise DataError(
            f"{split.name} has labels from {labels.min()} to {labels.max()}, the model has {logits.shape[1]} classes; "
            "use the data set that the model was trained on"
        )
    return _top(logits)


def _top(logits: FloatNK) -> Labels:
    result: Labels = logits.argmax(axis=1)
    return result
