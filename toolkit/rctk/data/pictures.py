"""Picture files to pixels, with Pillow."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from rctk.data.source import Pixels, refuse_damage
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".webp", ".tif", ".tiff"})
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "WEBP", "TIFF")  # whatever the file's name says; others can start programs
MAX_PIXELS = 64 * 2**20
MODES = {1: "L", 3: "RGB"}

Fit = Literal["crop", "stretch"]
"""How a picture gets another shape: its shorter side is scaled and its centre cut out, or both sides are scaled."""


def read_pictures(paths: Sequence[Path], spec: InputSpec | None, fit: Fit) -> Pixels:
    """Decode files to ``(N, C, H, W)`` uint8 of the size and channels in ``spec``.

    Without a spec, pictures become RGB and must all have the size of the first. Interpolation is Pillow's bilinear
    filter, which averages when it makes pictures smaller. The EXIF orientation is applied first.
    """
    channels = spec.channels if spec else 3
    if channels not in MODES:
        raise DataError(f"pictures have 1 or 3 channels and the model takes {channels}; store the images as .npz")
    size = (spec.height, spec.width) if spec else None
    images = np.empty((0, channels, 0, 0), dtype=np.uint8)
    for row, path in enumerate(paths):
        pixels = _read(path, MODES[channels], size, fit)
        if not row:
            images = np.empty((len(paths), channels, *pixels.shape[:2]), dtype=np.uint8)
        if pixels.shape[:2] != images.shape[2:]:
            raise DataError(
                f"{path} is {pixels.shape[0]}x{pixels.shape[1]} (height x width) and {paths[0]} is "
                f"{images.shape[2]}x{images.shape[3]}; give --input CHANNELSxHEIGHTxWIDTH, and rctk resizes them"
            )
        images[row] = pixels.reshape(*pixels.shape[:2], channels).transpose(2, 0, 1)
    return images


def _read(path: Path, mode: str, size: tuple[int, int] | None, fit: Fit) -> npt.NDArray[np.uint8]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sizes are checked below; what Pillow says about metadata changes no pixel
        with refuse_damage(path, "picture", "remove it or get it again"), Image.open(path, formats=FORMATS) as picture:
            return _pixels(path, picture, mode, size, fit)


def _pixels(
    path: Path, picture: Image.Image, mode: str, size: tuple[int, int] | None, fit: Fit
) -> npt.NDArray[np.uint8]:
    wide, high = picture.size
    if wide * high > MAX_PIXELS:
        raise DataError(
            f"{path} claims {wide}x{high} pixels, more than {MAX_PIXELS >> 20} Mi; it may be a decompression bomb: "
            "remove it or store it smaller"
        )
    if picture.mode.startswith(("I", "F")):
        raise DataError(f"{path} has more than 8 bits a channel (mode {picture.mode}); store it with 8")
    upright = ImageOps.exif_transpose(picture).convert(mode)
    if size is not None and fit == "crop":
        upright = ImageOps.fit(upright, (size[1], size[0]), method=Image.Resampling.BILINEAR)
    elif size is not None:
        upright = upright.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(upright, dtype=np.uint8)
