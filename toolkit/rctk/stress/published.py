"""The published arrays of corrupted CIFAR images, as they are distributed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rctk.data.source import refuse_damage
from rctk.data.split import Split
from rctk.stress import CORRUPTIONS
from rctk.stress.condition import Indices
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import DataError

FOLDERS = {"cifar10:test": "CIFAR-10-C", "cifar100:test": "CIFAR-100-C"}
"""Split to its folder below RCTK_DATA."""
BLOCKS = 5
"""Severities in one array, one after another."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A folder of ``TYPE.npy`` ``(5 M, H, W, 3)`` uint8, M images per severity in the order of the test set.

    Reference:
        Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
        ICLR 2019. https://zenodo.org/records/2535967

    Attributes:
        folder: Where the arrays lie.
        names: Types whose file is there.
    """

    folder: Path
    names: tuple[str, ...]

    def images(self, name: str, severity: int, indices: Indices, shape: tuple[int, ...]) -> FloatNCHW:
        """Return images ``indices`` of the test set under one corruption, ``(n, *shape)`` in [0, 1]."""
        path = self.folder / f"{name}.npy"
        with refuse_damage(path, "NumPy array", "get it again from its source"):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        wanted = (shape[1], shape[2], shape[0])
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1:] != wanted or len(array) % BLOCKS:
            raise DataError(
                f"{path}: expected uint8 (5 M, {', '.join(map(str, wanted))}), five severities of M images, found "
                f"{array.dtype} {array.shape}; get the published file"
            )
        block = len(array) // BLOCKS
        if len(indices) and indices.max() >= block:
            raise DataError(f"{path} holds {block} images per severity, image {indices.max()} is beyond; check --data")
        pixels = array[(severity - 1) * block + indices]
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)


def find_published(split: Split) -> Published | None:
    """Return the published arrays of the data set of ``split`` below RCTK_DATA, None where there are none.

    Their ``labels.npy`` must agree with the split: the arrays know images by position only.
    """
    root = os.environ.get("RCTK_DATA", "")
    folder = Path(root) / FOLDERS.get(split.name, "")
    if not root or split.name not in FOLDERS or not (folder / "labels.npy").is_file():
        return None
    path = folder / "labels.npy"
    with refuse_damage(path, "NumPy array", "get it again from its source"):
        labels = np.load(path, allow_pickle=False)
    if labels.ndim != 1 or split.indices.max() >= len(labels) or (labels[split.indices] != split.labels).any():
        raise DataError(
            f"{path} does not fit {split.name}: labels differ, so its images are others or in another order; use the "
            "official test set, or --source generated"
        )
    return Published(folder=folder, names=tuple(name for name in CORRUPTIONS if (folder / f"{name}.npy").is_file()))
