"""From ``name:split`` or ``path:split`` to images and labels."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path

from rctk.data.catalog import ANY_FOLDER, DATASETS, READERS
from rctk.data.download import can_download, download_split
from rctk.data.source import Request, Source, unit_images
from rctk.data.split import Split, check_labels, stratified_rows
from rctk_export.input_spec import InputSpec
from rctk_export.registry import unknown
from rctk_kernels.errors import DataError

VARIABLE = "RCTK_DATA"


def read_split(
    text: str,
    *,
    samples: int | None = None,
    seed: int = 0,
    input: InputSpec | None = None,  # noqa: A002 - the word for an InputSpec everywhere in rctk
    download: bool = False,
) -> Split:
    """Read one split of a data set.

    Args:
        text: ``name:split`` or ``path:split``; without a split, ``test``. A name is one of
            :data:`~rctk.data.catalog.DATASETS` or a folder below ``RCTK_DATA``; a path is a ``.npz`` or ``.mat`` file
            or a folder in any of the formats.
        samples: Draw that many images, classes in proportion, as :meth:`Split.sample` does; None reads all.
        seed: Of the draw.
        input: What the model takes. Pictures are resized to it; arrays of another shape are refused.
        download: Whether the files of a known data set may be fetched when they are missing.

    Returns:
        Images ``(N, C, H, W)`` float32 in [0, 1], labels from 0. :class:`DataError` says what is missing or wrong.
    """
    place, split, name = _parse(text)
    source = _find(place, split, input, download=download)
    if not len(source.labels):
        where = "" if name.startswith(str(source.where)) else f": {source.where}"
        raise DataError(f"{name}{where} holds no images; expected at least one, so get or write the set again")
    rows = stratified_rows(source.labels, samples, seed)
    try:
        images = unit_images(source.load(rows))
    except MemoryError as error:
        raise DataError(f"{name}: {len(rows)} images do not fit into memory; take fewer with --samples") from error
    if input is not None and images.shape[1:] != input.shape:
        found, wanted = ("x".join(map(str, shape)) for shape in (images.shape[1:], input.shape))
        raise DataError(
            f"{name}: images are {found} (channels x height x width) and the model takes {wanted}; choose a data set "
            "of that shape, correct --input, or give an image folder, which rctk resizes"
        )
    known = DATASETS.get(place)
    classes = source.classes or (known.classes if known else ())
    result = Split(name=name, images=images, labels=source.labels[rows], classes=classes, indices=rows)
    if known or classes:
        check_labels(result, known.count if known else len(classes))
    return result


def need_split(text: str, flag: str) -> None:
    """Refuse a data set by its name alone where something learns from it: that would be its test images.

    Example:
        >>> need_split("digits:train", "--data")
    """
    if text in DATASETS:
        raise DataError(f"{flag} {text} names no split; write {text}:train to learn from training images")


def is_test(text: str) -> bool:
    """Tell whether a data set is a test split by its name, or because it names no split; one file has no name for it.

    Example:
        >>> [is_test(text) for text in ("digits:test", "digits:train", "digits", "./set.npz", "./set.npz:test")]
        [True, False, True, False, True]
    """
    place, split, _ = _parse(text)
    return split == "test" and (place != text or not place.endswith((".npz", ".mat")))


def _parse(text: str) -> tuple[str, str, str]:
    """Return place, split and the name for records; a path may itself contain colons."""
    place, colon, split = text.rpartition(":")
    if not colon or not place or not re.fullmatch(r"[\w-]+", split) or _exists(text):
        return text, "test", text if _is_path(text) else f"{text}:test"
    return place, split, text


def _is_path(place: str) -> bool:
    return place.startswith(("~", ".")) or "/" in place or os.sep in place or place.endswith((".npz", ".mat"))


def _path(place: str) -> Path:
    return Path(os.path.expanduser(place))  # noqa: PTH111 - Path.expanduser fails on an unknown ~user


def _exists(place: str) -> bool:
    return os.path.exists(_path(place))  # noqa: PTH110 - Path.exists fails on names that are too long


def _find(place: str, split: str, spec: InputSpec | None, *, download: bool) -> Source:
    if not place.strip():
        raise DataError(
            f"no data set was named; write NAME:SPLIT, with a name such as {', '.join(DATASETS)}, or a path"
        )
    if place in DATASETS:
        return _known(place, split, spec, download=download)
    root = os.environ.get(VARIABLE, "")
    named = Path(root) / place
    if root and not _is_path(place) and _exists(str(named)):
        return _by_path(named, split, spec)
    path = _path(place)
    if _is_path(place) or _exists(place):
        return _by_path(path, split, spec)
    folders = (entry.name for entry in Path(root).iterdir() if entry.is_dir()) if root and Path(root).is_dir() else ()
    raise unknown("data set", place, sorted({*DATASETS, *folders}))


def _known(name: str, split: str, spec: InputSpec | None, *, download: bool) -> Source:
    data_set = DATASETS[name]
    root = os.environ.get(VARIABLE, "")
    if name != "digits" and not root:
        raise DataError(
            f"{name} is read from the folder that {VARIABLE} names, and {VARIABLE} is not set; run "
            f"`export {VARIABLE}=FOLDER` and put there {data_set.where}"
        )
    request = Request(Path(root) / name, split, spec)
    source = _try(data_set.readers, request)
    if source is None and download:
        download_split(name, split, request.path)
        source = _try(data_set.readers, request)
    if source is None:
        hint = ", or allow --download" if can_download(name, split) else ""
        raise DataError(
            f"{name}:{split} is not in {root} (official splits: {', '.join(data_set.splits)}); put there "
            f"{data_set.where}{hint}"
        )
    return source


def _by_path(path: Path, split: str, spec: InputSpec | None) -> Source:
    readers = {".npz": ("npz",), ".mat": ("svhn",)}.get(path.suffix.lower(), ANY_FOLDER if path.is_dir() else ())
    if not _exists(str(path)):
        raise DataError(f"no file or folder {path}; give a .npz, a .mat or a folder, or a name: {', '.join(DATASETS)}")
    if not readers:
        raise DataError(f"{path} is no data set that rctk reads; give a .npz, an SVHN .mat, or a folder")
    source = _try(readers, Request(path, split, spec))
    if source is None:
        raise DataError(
            f"{path} holds no split {split!r}; expected {split}.npz, the official files of a known data set, or a "
            f"folder {split}/ of class folders with images"
        )
    return source


def _try(readers: tuple[str, ...], request: Request) -> Source | None:
    """Return what the first reader finds that knows these files."""
    for reader in readers:
        module, _, function = READERS[reader].partition(":")
        try:
            source: Source | None = getattr(importlib.import_module(module), function)(request)
        except ModuleNotFoundError as error:
            raise DataError(
                f"reading {request.path} needs {error.name}; install it with `pip install 'rctk[host]'`"
            ) from error
        except OSError as error:
            raise DataError(f"cannot read {error.filename or request.path}: {error.strerror or error}") from error
        if source is not None:
            return source
    return None
