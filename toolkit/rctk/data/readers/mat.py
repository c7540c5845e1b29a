"""Numeric arrays from MATLAB 5 files, also compressed.

SciPy reads these files too, and crashes the whole process (segmentation fault, SciPy 1.17.1) on some that are
damaged in one byte; a data set may come from anywhere, so this part of the format is read here, in bounds.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from rctk.data.source import check_unpacked, refuse_damage

HEADER_BYTES = 128
MATRIX, COMPRESSED = 14, 15
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""How numbers lie in the file, which may be smaller than what they stand for."""
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
COMPLEX = 0x08


class Element(NamedTuple):
    """One tagged piece of the file: its type, its bytes, and where the next one starts."""

    kind: int
    data: bytes
    end: int


def read_mat(where: Path, names: Collection[str]) -> dict[str, npt.NDArray[Any]]:
    """Return the real numeric arrays called ``names`` that the file holds; others are passed over.

    Reference:
        MathWorks, "MAT-File Format", chapter "Level 5 MAT-File Format".
        https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
    """
    found = {}
    with refuse_damage(where, "MATLAB 5 file"), where.open("rb") as stream:
        header = stream.read(HEADER_BYTES)
        order = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}.get(header[124:], "")
        if not order:
            raise ValueError("it was saved by save -v7.3 or is something else")
        size = where.stat().st_size
        while stream.tell() < size:
            name, array = _variable(where, stream, size, order)
            if name in names and array is not None:
                found[name] = array
    return found


def _variable(where: Path, stream: BinaryIO, size: int, order: str) -> tuple[str, npt.NDArray[Any] | None]:
    kind, length = struct.unpack(f"{order}II", stream.read(8))
    if length > size - stream.tell():
        raise ValueError("it is cut off")
    body = stream.read(length)
    if kind == COMPRESSED:
        unpacker = zlib.decompressobj()
        kind, length = struct.unpack(f"{order}II", unpacker.decompress(body, 8))
        check_unpacked(where, length)
        body = unpacker.decompress(unpacker.unconsumed_tail, max(length, 1))
        if len(body) != length:
            raise ValueError("it is cut off")
    return _matrix(body, order) if kind == MATRIX else ("", None)


def _matrix(body: bytes, order: str) -> tuple[str, npt.NDArray[Any] | None]:
    """Take apart flags, shape, name and numbers; None for what is no real numeric array."""
    flags = _element(body, 0, order)
    word = struct.unpack(f"{order}I", flags.data[:4])[0]
    dims = _element(body, flags.end, order)
    name = _element(body, dims.end, order)
    text = name.data.decode("latin1")
    if word & 0xFF not in CLASSES or (word >> 8) & COMPLEX:
        return text, None
    shape = tuple(int(length) for length in np.frombuffer(dims.data, dtype=f"{order}i4"))
    numbers = _element(body, name.end, order)
    values = np.frombuffer(numbers.data, dtype=f"{order}{STORED[numbers.kind]}")
    if min(shape, default=0) < 0 or math.prod(shape) != len(values):
        raise ValueError(f"{text} of shape {shape} holds {len(values)} numbers")
    return text, values.astype(CLASSES[word & 0xFF], copy=False).reshape(shape, order="F")


def _element(body: bytes, start: int, order: str) -> Element:
    """Read one element; up to four bytes are stored inside the tag itself."""
    kind, length = struct.unpack_from(f"{order}II", body, start)
    if kind >> 16:
        kind, length, at, end = kind & 0xFFFF, kind >> 16, start + 4, start + 8
    else:
        at = start + 8
        end = at + -(-length // 8) * 8
    data = body[at : at + length]
    if len(data) != length:
        raise ValueError("it is cut off")
    return Element(kind, data, end)
