"""A model that is only ever shown 8-bit pixels, as behind a camera."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rctk.attacks.attack import Predict, Rows, query
from rctk.threat import LEVELS, ThreatModel
from rctk_export.input_spec import FloatNCHW, FloatNK

TOLERANCE = 1e-6
"""How far float32 may carry a pixel out of the budget."""


class OnGrid:
    """Rounds the images of every query, so that a query attack searches where its candidates will be judged.

    A query inside the budget becomes what the judge would make of it; one outside, as attacks on labels make, becomes
    the nearest image on the grid.

    Args:
        predict: What is asked; one with a method ``book`` is told which images a query is about.
        x: ``(N, C, H, W)``; originals of the group that is attacked.
        threat: Budget on the uint8 grid.
    """

    def __init__(self, predict: Predict, x: FloatNCHW, threat: ThreatModel) -> None:
        self._predict, self._x, self._threat = predict, x, threat
        self._float = replace(threat, grid="float")
        self._named: Rows | None = None
        beside: Predict | None = getattr(predict, "reference", None)
        self.reference = None if beside is None else OnGrid(beside, x, threat)

    def book(self, rows: Rows) -> None:
        """Say which images of the group the next query is about."""
        self._named = rows

    def __call__(self, images: FloatNCHW) -> FloatNK:
        """Return the logits of the rounded images."""
        named = np.arange(len(self._x)) if self._named is None else self._named
        self._named = None
        if len(named) != len(images):  # nobody said which images these are
            return self._predict(_nearest(images))
        return query(self._predict, self._rounded(images, self._x[named]), named)

    def _rounded(self, images: FloatNCHW, x0: FloatNCHW) -> FloatNCHW:
        away = np.abs(self._float.project(images, x0) - images).max(axis=(1, 2, 3), initial=0)
        inside = (away <= TOLERANCE)[:, None, None, None]
        return np.where(inside, self._threat.project(images, x0), _nearest(images))


def _nearest(images: FloatNCHW) -> FloatNCHW:
    unit = np.float32(LEVELS)
    result: FloatNCHW = np.clip(np.rint(images * unit), 0, unit) / unit
    return result
