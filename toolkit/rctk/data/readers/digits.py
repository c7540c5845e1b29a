"""The handwritten digits that come with scikit-learn: real data without a download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from rctk.data.source import Request, Source, array_source
from rctk.data.split import stratified_rows
from rctk_export.registry import unknown

TEST_IMAGES = 360
SPLIT_SEED = 0


def read(request: Request) -> Source:
    """Return 1,437 training or 360 test images, ``(N, 1, 8, 8)`` with 17 grey levels.

    The data set has no official split: 360 test images are drawn once, classes in proportion, with seed 0.

    Reference:
        Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998 (its test part).
        https://archive.ics.uci.edu/dataset/80
    """
    if request.split not in {"train", "test"}:
        raise unknown("split of digits", request.split, ["test", "train"])
    digits = load_digits()
    labels = digits.target.astype(np.int64)
    test = np.zeros(len(labels), dtype=bool)
    test[stratified_rows(labels, TEST_IMAGES, SPLIT_SEED)] = True
    chosen = test if request.split == "test" else ~test
    images = digits.images[chosen, None].astype(np.float32) / np.float32(16)
    return array_source(Path("scikit-learn's digits"), images, labels[chosen])
