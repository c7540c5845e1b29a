"""SVHN's cropped digits: ``train_32x32.mat``, ``test_32x32.mat``, ``extra_32x32.mat``."""

from __future__ import annotations

import numpy as np

from rctk.data.readers.mat import read_mat
from rctk.data.source import Request, Source, array_source, check_only_split
from rctk_kernels.errors import DataError

TEN = 10
"""How the files write the digit 0."""


def read(request: Request) -> Source | None:
    """Read one MATLAB file: ``X (32, 32, 3, N)`` uint8 and ``y (N, 1)``; images are ``(N, 3, 32, 32)``.

    Reference:
        Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning", 2011.
        http://ufldl.stanford.edu/housenumbers/
    """
    where = request.path
    if where.suffix.lower() != ".mat":
        where /= f"{request.split}_32x32.mat"
        if not where.is_file():
            return None
    elif not where.name.startswith(f"{request.split}_"):
        check_only_split(where, request.split)
    found = read_mat(where, ("X", "y"))
    described = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in found.items()) or "neither"
    images, labels = found.get("X"), found.get("y")
    if images is None or labels is None or images.ndim != 4 or images.shape[2] != 3 or images.dtype != np.uint8:
        raise DataError(f"{where}: expected X (H, W, 3, N) uint8 and y (N, 1), the cropped digits; found {described}")
    numbers = labels.reshape(-1)
    if numbers.dtype.kind == "f" and (numbers == np.floor(numbers)).all():  # MATLAB's usual numbers are doubles
        numbers = numbers.astype(np.int64)
    return array_source(where, images.transpose(3, 2, 0, 1), np.where(numbers == TEN, 0, numbers))
