"""IDX files, the format of MNIST and Fashion-MNIST, plain or gzipped."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from rctk.data.source import Request, Source, array_source, check_unpacked, refuse_damage
from rctk_kernels.errors import DataError

PREFIXES = {"train": "train", "test": "t10k"}
FOLDERS = (".", "raw", "MNIST/raw", "FashionMNIST/raw")
UINT8 = 8


def read(request: Request) -> Source | None:
    """Read ``train-`` or ``t10k-images-idx3-ubyte[.gz]`` and its labels; images are ``(N, 1, 28, 28)``.

    Reference:
        LeCun, Cortes and Burges, "The MNIST database", section "File formats". http://yann.lecun.com/exdb/mnist/
    """
    prefix = PREFIXES.get(request.split)
    for folder in (request.path / name for name in FOLDERS) if prefix else ():
        images, labels = _file(folder, f"{prefix}-images", "idx3"), _file(folder, f"{prefix}-labels", "idx1")
        if images and labels:
            return array_source(images, read_idx(images, axes=3)[:, None], read_idx(labels, axes=1))
        if images or labels:
            lacking = f"{prefix}-{'labels-idx1' if images else 'images-idx3'}-ubyte.gz"
            raise DataError(f"{folder} has {(images or labels or folder).name} but no {lacking}; put it there too")
    return None


def _file(folder: Path, stem: str, kind: str) -> Path | None:
    names = [f"{stem}{joint}{kind}-ubyte{end}" for joint in "-." for end in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_idx(path: Path, *, axes: int) -> npt.NDArray[np.uint8]:
    """Read one IDX file of unsigned bytes with ``axes`` axes."""
    with refuse_damage(path, "IDX file"), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        return _parse(path, cast("BinaryIO", stream), axes)


def _parse(path: Path, stream: BinaryIO, axes: int) -> npt.NDArray[np.uint8]:
    header = stream.read(4 + 4 * axes)
    if header[:4] != bytes([0, 0, UINT8, axes]) or len(header) < 4 + 4 * axes:
        raise DataError(
            f"{path} starts with {header[:4].hex(' ') or 'nothing'}, expected 00 00 08 {axes:02x}: an IDX file of "
            f"bytes with {axes} axes; get it again from its source"
        )
    shape = tuple(int(size) for size in np.frombuffer(header, dtype=">u4", offset=4))
    size = math.prod(shape)
    check_unpacked(path, size)
    data = stream.read(size + 1)
    if len(data) != size:
        found = f"only {len(data)}" if len(data) < size else "more"
        raise DataError(f"{path} declares {size} bytes of data and holds {found}; get it again from its source")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)
