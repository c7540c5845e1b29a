"""Elastic transform."""

from __future__ import annotations

import numpy as np

from rctk.stress.corrupt import Real, by_size
from rctk.stress.resample import Matrix, gaussian, sample
from rctk_export.input_spec import FloatNCHW

SMALL = ((0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))
LARGE = ((2.0, 0.7, 0.1), (2.0, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
OVERSIZE = 244 / 224
"""The published constants of large images are shares of 244 pixels."""


def elastic_transform(images: FloatNCHW, severity: int, rng: np.random.Generator) -> Real:
    """Move three points at random and stretch the image with them, then shift every pixel by a smooth random field.

    Constants are shares of the shorter side: length of the shifts, their smoothing, and reach of the three points. All
    images of a batch share the draws.
    """
    height, width = images.shape[2:]
    amplitude, smoothing, reach = by_size(images, SMALL, LARGE, severity)
    side = min(height, width) * (OVERSIZE if min(height, width) > 64 else 1.0)
    stretched = sample(images, *_affine_places(height, width, reach * side, rng), "reflect")
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    fields = rng.uniform(-1, 1, (2, height, width))
    smooth = gaussian(fields, smoothing * side, border="symmetric", truncate=3.0) * (amplitude * side)
    return sample(stretched, rows + smooth[0], columns + smooth[1], "symmetric")


def _affine_places(height: int, width: int, reach: float, rng: np.random.Generator) -> tuple[Matrix, Matrix]:
    """Return where each pixel comes from, rows and columns ``(height, width)``, when three points move by ``reach``."""
    centre, arm = np.array([height // 2, width // 2]), max(min(height, width) // 3, 1)
    points = centre + arm * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = points + rng.uniform(-reach, reach, points.shape)
    back = np.linalg.solve(np.column_stack([moved, np.ones(3)]), points.astype(np.float64))
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    places = rows[..., None] * back[0] + columns[..., None] * back[1] + back[2]
    return places[..., 0], places[..., 1]
