"""Where attacks on labels begin: an image that is misclassified, and the way from it to the border.

Questions are asked one at a time and every one of them is paid from the image's budget.
"""

from __future__ import annotations

from collections.abc import Generator
from itertools import chain

import numpy as np

from rctk.attacks.case import Case, FloatCHW
from rctk.attacks.draws import Words, image_seeds, words
from rctk.attacks.lockstep import Reply
from rctk.data.split import Labels
from rctk_export.input_spec import FloatNCHW

DONORS = 8
"""Images of other classes that are looked at per image, the nearest one first."""
NOISES = 32
"""Images of uniform noise that are tried per image after that."""

NEARER = 0.9
"""Share of the radius so far at which a donor must still be misclassified to take over."""


class Donors:
    """Images of other classes in the same batch, drawn for each image by chance and not by their order.

    Args:
        x: The batch ``(N, C, H, W)``.
        y: True labels ``(N,)``.
    """

    def __init__(self, x: FloatNCHW, y: Labels) -> None:
        self._x, self._y = x, y
        self._seeds: Words = image_seeds(x, 0)

    def of(self, case: Case) -> FloatNCHW:
        """Return at most ``DONORS`` images of other classes, ``(n, C, H, W)``, the nearest one first."""
        others = np.flatnonzero(self._y != self._y[case.row])
        lot = np.uint64(case.rng.integers(2**63))
        drawn = others[np.argsort(words(self._seeds[others] ^ lot, 0, 1)[:, 0], kind="stable")[:DONORS]]
        images = self._x[drawn]
        return images[np.argsort(case.distances(images), kind="stable")]


def start(case: Case, donors: FloatNCHW, tolerance: float) -> Generator[FloatNCHW, Reply, FloatCHW | None]:
    """Return a misclassified image at the border, ``None`` where no misclassified image is found at all.

    It lies on the way to one of ``donors``, or else to noise. The first one that is misclassified is approached; each
    later donor costs one query, unless it is still misclassified at a smaller radius.
    """
    near = None
    noises = (case.rng.random(case.x.shape, dtype=np.float32) for _ in range(NOISES))
    for turn, image in enumerate(chain(donors, noises)):
        if near is not None and turn >= len(donors):
            break
        far = image if near is None else _at_radius(case, image, NEARER * case.distance(near))
        point = yield from wrong(case, far)
        if point is not None:
            near = yield from approach(case, point, tolerance)
    return near


def wrong(case: Case, point: FloatCHW) -> Generator[FloatNCHW, Reply, FloatCHW | None]:
    """Ask about ``point`` and return it, as it was fed, where it is misclassified."""
    images = case.legal(point[None])
    (fooled,) = yield images
    if not fooled:
        return None
    image: FloatCHW = images[0]
    case.offer(image, case.distance(image))
    return image


def approach(case: Case, far: FloatCHW, tolerance: float) -> Generator[FloatNCHW, Reply, FloatCHW]:
    """Return the misclassified image next to the border on the way from ``far``, misclassified, to the original.

    The way is straight in l2; in linf it shrinks the largest differences first. The radius is bisected down to
    ``eps`` and not below: where it comes that near, the image that the judge would make of ``far`` is asked about, and
    a success there ends the search.
    """
    near, high = far, case.distance(far)
    low = floor = min(case.threat.eps, high)
    while high - low > tolerance:
        middle = (low + high) / 2
        nearer = yield from wrong(case, _at_radius(case, far, middle))
        if nearer is None:
            low = middle
        else:
            near, high = nearer, min(middle, case.distance(nearer))
    if low == floor:
        yield case.project(far[None])
    return near


def _at_radius(case: Case, far: FloatCHW, radius: float) -> FloatCHW:
    """Return the point on the way to ``far`` that is ``radius`` away from the original."""
    delta = far - case.x
    if case.threat.norm == "linf":
        delta = np.clip(delta, np.float32(-radius), np.float32(radius))
    else:
        delta *= np.float32(radius / max(case.distance(far), 1e-30))
    point: FloatCHW = case.x + delta
    return point
