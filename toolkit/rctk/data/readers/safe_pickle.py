"""Reads the pickles of CIFAR: numbers, text, containers and NumPy arrays of bytes or integers, and nothing else.

A pickle is a program. Here it can name six types, all of them stand-ins from this file that only store what they are
given, so that not even NumPy's own unpickling code meets the file's bytes.
"""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rctk.data.source import refuse_damage
from rctk_kernels.errors import DataError

DTYPES = ("u1", "i1", "i2", "i4", "i8")


class Latin1:
    """Stands for ``_codecs.encode``, with which Python 3 writes bytes in protocol 2."""

    def __new__(cls, text: str = "", encoding: str = "latin1") -> Any:
        """Return the bytes."""
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"unexpected encoding {encoding!r}")
        return text.encode("latin1")

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("bytes have no state")


class DType:
    """Stands for ``numpy.dtype``; keeps its code and byte order."""

    def __init__(self, code: str | bytes, *_: object) -> None:
        self.code = code.decode() if isinstance(code, bytes) else str(code)
        self.order = "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        self.order = order.decode() if isinstance(order, bytes) else str(order)

    def real(self) -> np.dtype[Any]:
        """Return the dtype if it is one of small integers."""
        if self.code not in DTYPES or self.order not in set("<>|="):
            raise pickle.UnpicklingError(f"unexpected dtype {self.code!r}")
        return np.dtype(self.order + self.code)


class Array:
    """Stands for ``numpy.ndarray`` and its ``_reconstruct``; the state is (version, shape, dtype, fortran, bytes)."""

    def __init__(self, *_: object) -> None:
        self.values: npt.NDArray[Any] = np.empty(0, dtype=np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.values = _array(data, dtype, shape, "F" if fortran else "C")


class BufferArray(Array):
    """Stands for ``numpy``'s ``_frombuffer`` of pickle protocol 5."""

    def __init__(self, data: bytes, dtype: DType, shape: tuple[int, ...], order: str) -> None:
        super().__init__()
        self.values = _array(data, dtype, shape, order)


def _array(data: Any, dtype: Any, shape: Any, order: str) -> npt.NDArray[Any]:
    if not (isinstance(data, bytes | bytearray) and isinstance(dtype, DType) and isinstance(shape, tuple)):
        raise pickle.UnpicklingError("an array is not stored as plain bytes")
    real = dtype.real()
    if math.prod(shape) * real.itemsize != len(data):
        raise pickle.UnpicklingError(f"an array of shape {shape} does not fit its {len(data)} bytes")
    return np.frombuffer(data, dtype=real).reshape(shape, order="F" if order == "F" else "C")


_NAMES: dict[tuple[str, str], type] = {
    ("_codecs", "encode"): Latin1,
    ("numpy", "dtype"): DType,
    ("numpy", "ndarray"): Array,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): Array for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): BufferArray for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no part of a data set")
        return _NAMES[module, name]


def read_pickle(where: Path, data: bytes) -> dict[str, Any]:
    """Return the dictionary in ``data`` with text keys and arrays as NumPy arrays; no code of the file runs."""
    with refuse_damage(where, "pickle of a data set"):
        found = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    if not isinstance(found, dict):
        raise DataError(f"{where} holds a {type(found).__name__}, expected a dictionary; get it again from its source")
    return {_text(key): value.values if isinstance(value, Array) else value for key, value in found.items()}


def _text(key: object) -> str:
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)
