"""CIFAR-10 and CIFAR-100 as published: the Python and the binary version, unpacked or still in their ``.tar.gz``."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rctk.data.readers.safe_pickle import read_pickle
from rctk.data.source import Request, Source, array_source, check_unpacked, refuse_damage
from rctk_kernels.errors import DataError

PIXELS = 3 * 32 * 32
Batch = tuple[npt.NDArray[Any], npt.NDArray[Any]]
"""Images ``(n, 3072)`` uint8, red then green then blue plane, and labels ``(n,)``."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One published version of a set.

    Attributes:
        folders: Where its files lie, below the folder of the set; also inside the archive.
        archive: Name of the packed version.
        files: Split to files, in the official order.
        names: File of class names, and the key in it (empty: a text file).
        decode: Turns one file into images and labels.
    """

    folders: tuple[str, ...]
    archive: str
    files: Mapping[str, tuple[str, ...]]
    names: tuple[str, str]
    decode: Callable[[Path, bytes], Batch]


def _pickled(where: Path, data: bytes) -> Batch:
    batch = read_pickle(where, data)
    images, labels = batch.get("data"), batch.get("fine_labels", batch.get("labels"))
    if not isinstance(images, np.ndarray) or images.ndim != 2 or images.dtype != np.uint8 or images.shape[1] != PIXELS:
        raise DataError(f"{where}: 'data' is no uint8 array (N, {PIXELS}); get the file again from its source")
    if labels is None:
        raise DataError(f"{where} has no 'labels' or 'fine_labels'; get the file again from its source")
    try:
        return images, np.asarray(labels, dtype=np.int64)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{where}: labels are no integers ({error}); get the file again from its source") from error


def _binary(where: Path, data: bytes, *, labels: int) -> Batch:
    row = labels + PIXELS
    if len(data) % row:
        raise DataError(f"{where} has {len(data)} bytes, no multiple of {row}; get it again from its source")
    rows = np.frombuffer(data, dtype=np.uint8).reshape(-1, row)
    return rows[:, labels:], rows[:, labels - 1]  # CIFAR-100 writes the coarse label in front of the fine one


_TRAIN10 = tuple(f"data_batch_{number}" for number in range(1, 6))
CIFAR10 = (
    Layout(
        folders=(".", "cifar-10-batches-py"),
        archive="cifar-10-python.tar.gz",
        files={"train": _TRAIN10, "test": ("test_batch",)},
        names=("batches.meta", "label_names"),
        decode=_pickled,
    ),
    Layout(
        folders=(".", "cifar-10-batches-bin"),
        archive="cifar-10-binary.tar.gz",
        files={"train": tuple(f"{name}.bin" for name in _TRAIN10), "test": ("test_batch.bin",)},
        names=("batches.meta.txt", ""),
        decode=lambda where, data: _binary(where, data, labels=1),
    ),
)
CIFAR100 = (
    Layout(
        folders=(".", "cifar-100-python"),
        archive="cifar-100-python.tar.gz",
        files={"train": ("train",), "test": ("test",)},
        names=("meta", "fine_label_names"),
        decode=_pickled,
    ),
    Layout(
        folders=(".", "cifar-100-binary"),
        archive="cifar-100-binary.tar.gz",
        files={"train": ("train.bin",), "test": ("test.bin",)},
        names=("fine_label_names.txt", ""),
        decode=lambda where, data: _binary(where, data, labels=2),
    ),
)


def read_cifar10(request: Request) -> Source | None:
    """Read CIFAR-10; images are ``(N, 3, 32, 32)``.

    Reference:
        Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
        https://www.cs.toronto.edu/~kriz/cifar.html
    """
    return _read(request, CIFAR10)


def read_cifar100(request: Request) -> Source | None:
    """Read CIFAR-100 with its 100 fine labels; see :func:`read_cifar10`."""
    return _read(request, CIFAR100)


def _read(request: Request, layouts: tuple[Layout, ...]) -> Source | None:
    for layout in layouts:
        files = layout.files.get(request.split, ())
        for folder in (request.path / name for name in layout.folders) if files else ():
            found = _from_folder(folder, (*files, layout.names[0]))
            if any(name in found for name in files):
                return _source(folder, layout, files, found)
        packed = request.path / layout.archive
        if files and packed.is_file():
            return _source(packed, layout, files, _from_archive(packed, (*files, layout.names[0])))
    return None


def _from_folder(folder: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def _from_archive(path: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """Read members by name in one pass; nothing is unpacked to disk."""
    found: dict[str, bytes] = {}
    with refuse_damage(path, ".tar.gz"), tarfile.open(path, "r|gz") as archive:
        for member in archive:
            name = member.name.rpartition("/")[2]
            if name in names and member.isfile():
                check_unpacked(path, member.size)
                stream = archive.extractfile(member)
                found[name] = stream.read() if stream else b""
    return found


def _source(where: Path, layout: Layout, files: tuple[str, ...], found: dict[str, bytes]) -> Source:
    lacking = [name for name in files if name not in found]
    if lacking:
        raise DataError(f"{where} lacks {', '.join(lacking)}; put the whole set there")
    batches = [layout.decode(where / name, found.pop(name)) for name in files]
    images = np.concatenate([batch[0] for batch in batches]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([batch[1] for batch in batches])
    return array_source(where, images, labels, _names(where, layout, found))


def _names(where: Path, layout: Layout, found: dict[str, bytes]) -> tuple[str, ...]:
    file, key = layout.names
    if file not in found:
        return ()
    if not key:
        return tuple(found[file].decode("utf-8", "replace").split())
    names = read_pickle(where / file, found[file]).get(key, ())
    return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names)
