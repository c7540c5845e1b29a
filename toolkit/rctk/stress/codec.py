"""JPEG by Pillow, a host package; imported only where JPEG is asked for."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from rctk.stress.condition import LEVELS
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import DataError


def through_jpeg(images: FloatNCHW, quality: int) -> FloatNCHW:
    """Encode images ``(N, C, H, W)`` of one (grey) or three channels as JPEG, 4:2:0, and decode them."""
    if images.shape[1] not in {1, 3}:
        raise DataError(f"JPEG stores grey or colour images, found {images.shape[1]} channels; leave JPEG out")
    pixels = np.rint(images * LEVELS).astype(np.uint8)
    decoded = np.stack([_through(one, quality) for one in pixels]) if len(pixels) else pixels
    return decoded.astype(np.float32) / LEVELS


def _through(
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], quality: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    grey = len(pixels) == 1
    stream = BytesIO()
    Image.fromarray(pixels[0] if grey else pixels.transpose(1, 2, 0)).save(stream, "JPEG", quality=quality)
    with Image.open(stream) as image:
        array = np.asarray(image)
    return array[None] if grey else array.transpose(2, 0, 1)
