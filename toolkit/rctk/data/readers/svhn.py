"""SVHN's cropped digits: ``train_32x32.mat``, ``test_32x32.mat``, ``extra_32x32.mat``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rctk.data.source import Request, Source, array_source, check_only_split, check_unpacked
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
    found = _load(where)
    labels = found["y"].reshape(-1)
    if labels.dtype.kind == "f" and (labels == np.floor(labels)).all():  # MATLAB's usual numbers are doubles
        labels = labels.astype(np.int64)
    return array_source(where, found["X"].transpose(3, 2, 0, 1), np.where(labels == TEN, 0, labels))


def _load(where: Path) -> dict[str, npt.NDArray[Any]]:
    """Read ``X`` and ``y``, whose shapes are checked before anything large is unpacked."""
    from scipy.io import loadmat, whosmat  # noqa: PLC0415 - folders are looked through without SciPy

    try:
        listed = {name: (tuple(shape), kind) for name, shape, kind in whosmat(where, appendmat=False)}
        _check_listing(where, listed)
        found: dict[str, npt.NDArray[Any]] = loadmat(where, variable_names=["X", "y"], appendmat=False)
    except Exception as error:  # a damaged file can end in any exception
        if isinstance(error, DataError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise DataError(
            f"{where} is no readable MATLAB 5 file ({type(error).__name__}: {error}); get it again from its source"
        ) from error
    return found


def _check_listing(where: Path, listed: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
    shape, kind = listed.get("X", ((), ""))
    count = shape[3] if len(shape) == 4 and shape[2] == 3 and kind == "uint8" else -1
    if listed.get("y", ((), ""))[0] not in {(count, 1), (1, count)}:
        raise DataError(
            f"{where} holds {listed}; expected X (H, W, 3, N) uint8 and y (N, 1), the cropped digits of SVHN"
        )
    check_unpacked(where, math.prod(shape))
