"""The images that steps learn from, and those that they choose by."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rctk.data import read_split
from rctk.data.leaks import tell_learning
from rctk.data.read import need_split
from rctk.data.split import Split
from rctk.progress import Progress, Silent
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import DataError


class LearningImages(NamedTuple):
    """Disjoint unless the user names the same split twice."""

    train: Split
    validation: Split


def hold_out(split: Split, seed: int) -> LearningImages:
    """Keep a tenth of ``split`` for validation, classes in proportion."""
    if len(split) < 2:
        raise DataError(f"{split.name} has {len(split)} images; give more, or others to validate on with --validation")
    held = split.sample(max(1, len(split) // 10), seed)
    return LearningImages(split.take(np.flatnonzero(~np.isin(split.indices, held.indices))), held)


def read_images(  # noqa: PLR0913  # each is a flag, and who hears
    data: str,
    validation: str | None,
    *,
    input: InputSpec,  # noqa: A002  # the flag is --input
    samples: int | None = None,
    seed: int = 0,
    download: bool = False,
    progress: Progress | None = None,
) -> LearningImages:
    """Read training images, and those to validate on: a tenth of the first where no others are named.

    ``progress`` hears what would make results look better than they are; see :func:`rctk.data.leaks.tell_learning`.
    """
    heard = progress or Silent()
    need_split(data, "--data")
    train = read_split(data, samples=samples, seed=seed, input=input, download=download)
    if validation is None:
        tell_learning(train, None, heard)
        return hold_out(train, seed)
    held = read_split(validation, seed=seed, input=input, download=download)
    if not len(train) or not len(held):
        raise DataError(
            f"{(held if len(train) else train).name} holds no images; steps need some to learn and validate"
        )
    tell_learning(train, held, heard)
    return LearningImages(train, held)
