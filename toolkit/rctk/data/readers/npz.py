"""NumPy archives: ``FOLDER/<split>.npz``, or one file for all splits."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rctk.data.source import Pixels, Request, Source, array_source, check_only_split, check_unpacked, refuse_damage
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import DataError

IMAGE_KEYS = ("images", "image", "x", "X", "data")
LABEL_KEYS = ("labels", "label", "y", "Y", "targets", "target")
CHANNELS = (1, 3, 4)
REMEDY = "write it with numpy.savez, from plain arrays"


def read(request: Request) -> Source | None:
    """Read images (uint8, or floats in [0, 1]) and integer labels from an archive; objects are never unpickled.

    Keys are ``images`` and ``labels`` (or ``x`` and ``y``, ``data`` and ``targets``), for a file of several splits with
    the split's name: ``x_train`` or ``train_images``. An optional ``classes`` holds the names of the classes.
    Images are ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)``.
    """
    where = request.path / f"{request.split}.npz" if request.path.is_dir() else request.path
    if where.suffix != ".npz" or not where.is_file():
        return None
    with (
        refuse_damage(where, ".npz", REMEDY),
        where.open("rb") as stream,
        np.load(stream, allow_pickle=False) as archive,
    ):
        image_key, label_key = _keys(where, archive.files, request.split)
        wanted = [key for key in (image_key, label_key, "classes") if key in archive.files]
        sizes = {item.filename: item.file_size for item in archive.zip.infolist()}
        check_unpacked(where, sum(sizes.get(f"{key}.npy", sizes.get(key, 0)) for key in wanted))
        arrays = {key: _plain(where, key, archive[key]) for key in wanted}
    classes = tuple(str(name) for name in arrays.get("classes", np.empty(0)).reshape(-1))
    return array_source(where, to_nchw(where, arrays[image_key], request.input), arrays[label_key], classes)


def _plain(where: Path, key: str, array: Any) -> npt.NDArray[Any]:
    if not isinstance(array, np.ndarray):
        raise DataError(f"{where}: {key!r} is no NumPy array; {REMEDY}")
    return array


def _keys(where: Path, keys: Collection[str], split: str) -> tuple[str, str]:
    """Find the two keys of a split; those that name the split come first."""
    found = []
    for names in (IMAGE_KEYS, LABEL_KEYS):
        named = [form for key in names for form in (f"{key}_{split}", f"{split}_{key}")]
        found.append(next((key for key in (*named, *names) if key in keys), ""))
    if not all(found):
        raise DataError(
            f"{where} holds {', '.join(sorted(keys)) or 'nothing'}; expected images and labels, or x_{split} and "
            f"y_{split}"
        )
    image_key, label_key = found
    if (image_key in IMAGE_KEYS) != (label_key in LABEL_KEYS):
        raise DataError(f"{where}: {image_key} and {label_key} do not belong together; name both for the split or none")
    if image_key in IMAGE_KEYS:
        check_only_split(where, split)
    return image_key, label_key


def to_nchw(where: Path, images: Pixels, spec: InputSpec | None) -> Pixels:
    """Return a view ``(N, C, H, W)``; the model's shape decides, else the axis that has 1, 3 or 4 channels."""
    if images.ndim == 3:
        return images[:, None]
    if images.ndim != 4:
        raise DataError(f"{where}: images have shape {images.shape}; expected (N, H, W), (N, H, W, C) or (N, C, H, W)")
    first, last = images.shape[1] in CHANNELS, images.shape[3] in CHANNELS
    if spec is not None and spec.shape == images.shape[1:]:
        first, last = True, False
    elif spec is not None and (spec.height, spec.width, spec.channels) == images.shape[1:]:
        first, last = False, True
    if first == last:
        raise DataError(
            f"{where}: cannot tell which axis of {images.shape} holds the channels; say it with --input "
            "CHANNELSxHEIGHTxWIDTH"
        )
    return images if first else images.transpose(0, 3, 1, 2)
