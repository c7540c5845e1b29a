"""Whether an engine gives the same image the same answer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rctk.attacks.attack import Predict
from rctk.evaluation.counting import Counted
from rctk.evaluation.judge import Flags
from rctk.evaluation.shares import Share
from rctk_export.input_spec import FloatNCHW, FloatNK
from rctk_kernels.errors import DataError, OptionError

TOLERANCE = 1e-4
"""Largest distance of two unit logit vectors that AutoAttack's check still takes for a deterministic model."""


@dataclass(frozen=True, kw_only=True)
class Repeatability:
    """What repeated passes over the same images differ in.

    Attributes:
        repeats: Passes.
        changed: ``(N,)``; the predicted class was not the same in all passes.
        largest_distance: Largest l2 distance between two answers to one image, each scaled to length 1.
    """

    repeats: int
    changed: Flags
    largest_distance: float

    @property
    def changed_share(self) -> Share:
        """Share of images whose class changed."""
        return Share.of(self.changed)

    @property
    def deterministic(self) -> bool:
        """Whether attacks need not average over draws of the model (``eot``)."""
        return not self.changed.any() and self.largest_distance <= TOLERANCE

    def sentence(self) -> str:
        """Word what a report should say."""
        share = self.changed_share
        if self.deterministic:
            return f"{self.repeats} passes over {share.samples} images gave the same classes"
        return (
            f"{share.hits} of {share.samples} images changed their class in {self.repeats} passes, unit logits moved "
            f"by up to {self.largest_distance:.1e}: the model answers at random, so average attacks over its draws"
        )


def repeatability(predict: Predict, images: FloatNCHW, *, repeats: int = 5, batch_size: int = 64) -> Repeatability:
    """Classify ``images`` ``(N, C, H, W)`` again and again, in the same batches, and compare all passes.

    Reference:
        Croce and Hein, "Reliable Evaluation of Adversarial Robustness", ICML 2020; its code checks five passes.
        https://arxiv.org/abs/2003.01690

    Example:
        >>> repeatability(lambda x: x[:, :, 0, 0], np.ones((3, 2, 1, 1), dtype=np.float32)).deterministic
        True
    """
    if repeats < 2:
        raise OptionError(f"repeats must be at least 2, got {repeats}")
    if not len(images):
        raise DataError("repeatability needs at least 1 image, got 0")
    counted = Counted(predict, len(images), batch_size)
    passes = [np.array(counted(images)) for _ in range(repeats)]
    classes = np.stack([logits.argmax(axis=1) for logits in passes])
    units = [_unit(logits) for logits in passes]
    distances = [np.linalg.norm(a - b, axis=1).max() for a, b in combinations(units, 2)]
    return Repeatability(
        repeats=repeats,
        changed=np.asarray((classes != classes[0]).any(axis=0)),
        largest_distance=float(max(distances)),
    )


def _unit(logits: FloatNK) -> FloatNK:
    length = np.linalg.norm(logits, axis=1, keepdims=True)
    return np.asarray(logits / np.maximum(length, 1e-12))
