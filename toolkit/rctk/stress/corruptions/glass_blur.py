"""Glass blur."""

from __future__ import annotations

import numpy as np

from rctk.stress.corrupt import Real, by_size
from rctk.stress.resample import gaussian
from rctk_export.input_spec import FloatNCHW

SMALL = ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))
LARGE = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))


def glass_blur(images: FloatNCHW, severity: int, rng: np.random.Generator) -> Real:
    """Blur, let pixels take the place of near ones, blur again.

    From the lower right corner on, every pixel takes over the present value of a random one at most ``shift`` away. (A
    swap was meant; the published images were made by copies.) All images of a batch share the draws.
    """
    sigma, shift, passes = by_size(images, SMALL, LARGE, severity)
    height, width = images.shape[2:]
    source = list(range(height * width))
    for _ in range(passes):
        rows, columns = range(height - shift, shift, -1), range(width - shift, shift, -1)
        moves = rng.integers(-shift, shift, size=(len(rows) * len(columns), 2)) @ np.array([width, 1])
        places = (np.array(rows, dtype=np.int64)[:, None] * width + np.array(columns, dtype=np.int64)).reshape(-1)
        for place, near in zip(places.tolist(), (places + moves).tolist(), strict=True):
            source[place] = source[near]
    blurred = gaussian(images, sigma).reshape(*images.shape[:2], -1)
    return gaussian(blurred[..., source].reshape(images.shape), sigma)
