"""A folder of pictures: one folder per class, below a folder per split."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rctk.data.pictures import SUFFIXES, read_pictures
from rctk.data.source import Pixels, Request, Source, check_only_split
from rctk.data.split import Labels
from rctk_kernels.errors import DataError

SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation"})
CLASSES = "classes.txt"


def read(request: Request) -> Source | None:
    """Read ``FOLDER/<split>/<class>/*.png``, or ``FOLDER/<class>/*.png`` where there are no splits.

    Classes are numbered in the order of their sorted folder names. A file ``classes.txt`` in FOLDER, one name a line,
    sets the order instead: a folder with 50 of ImageNet's classes keeps their numbers. Pictures lie in the class
    folder or one folder below it; other files and hidden ones are passed over. With an input spec the shorter side
    is scaled to it and the centre cut out; see :func:`~rctk.data.pictures.read_pictures`.
    """
    folder = request.path / request.split
    if not folder.is_dir():
        folder = request.path
        if any(child.lower() in SPLITS for child in _folders(folder)):
            return None
    found = _folders(folder)
    classes = _class_names(request.path, found)
    files: list[Path] = []
    labels: list[int] = []
    for name in found:
        pictures = _pictures(folder / name)
        files += pictures
        labels += [classes.index(name)] * len(pictures)
    if not files:
        return None
    if folder == request.path:
        check_only_split(folder, request.split)

    def load(rows: Labels) -> Pixels:
        return read_pictures([files[row] for row in rows], request.input, "crop")

    return Source(where=folder, labels=np.array(labels, dtype=np.int64), load=load, classes=classes)


def _folders(folder: Path) -> list[str]:
    return sorted(child.name for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _class_names(folder: Path, found: list[str]) -> tuple[str, ...]:
    listing = folder / CLASSES
    if not listing.is_file():
        return tuple(found)
    names = tuple(line.strip() for line in listing.read_text("utf-8", "replace").splitlines() if line.strip())
    strange = sorted(set(found) - set(names))
    if strange:
        raise DataError(
            f"{listing} lists {len(names)} classes and not {strange[0]!r}, a folder beside it; add it there"
        )
    return names


def _pictures(folder: Path) -> list[Path]:
    """List the pictures of a class, at most one folder down, so that a mistaken path is not searched for hours."""
    files = [path for path in folder.iterdir() if not path.name.startswith(".")]
    files += [path for child in files if child.is_dir() for path in child.iterdir() if not path.name.startswith(".")]
    return sorted(path for path in files if path.suffix.lower() in SUFFIXES)
