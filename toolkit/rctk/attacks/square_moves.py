"""The starts and moves of the Square attack, for many images at once, each with a square of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from rctk.attacks.draws import Words, below, uniform, words
from rctk.projection_l1 import shrink_l1
from rctk_export.input_spec import FloatNCHW

WORD = 64
_SHIFTS = np.arange(WORD, dtype=np.uint64)
_START = 2**40  # stream of the start, far from those of the moves


Settle: TypeAlias = Callable[[npt.NDArray[np.bool_]], None]
Order: TypeAlias = Literal[1, 2]
"""The norm in which mass is counted."""
_TINY = np.float32(1e-12)


@dataclass(frozen=True, kw_only=True)
class Moves:
    """One norm's version of the attack.

    Attributes:
        start: ``(x, seeds, eps)`` to first candidates.
        side: ``(area, (C, H, W))`` to the side of the square in pixels.
        propose: ``(current, x, side, draws, eps)`` to next candidates, and a function that is told which of
            them, ``(N,)`` bool, are to stay in ``current``. Until then ``current`` is not to be used.
        draws: Random words per image and move.
    """

    start: Callable[[FloatNCHW, Words, np.float32], FloatNCHW]
    side: Callable[[float, tuple[int, ...]], int]
    propose: Callable[[FloatNCHW, FloatNCHW, int, Words, np.float32], tuple[FloatNCHW, Settle]]
    draws: int


def windows(images: FloatNCHW, side: int) -> npt.NDArray[np.float32]:
    """Return all windows of C-contiguous images as a view ``(N, C, H - side + 1, W - side + 1, side, side)``."""
    n, c, h, w = images.shape
    shape, strides = (n, c, h - side + 1, w - side + 1, side, side), images.strides
    return np.ndarray(shape, images.dtype, images, 0, strides + strides[2:])  # as as_strided, in a tenth of its time


def signs(draws: Words, channels: int, size: np.float32) -> npt.NDArray[np.float32]:
    """Return ``-size`` or ``size`` per image and channel, ``(N, channels, 1, 1)``, from one word per image."""
    many = draws[:, None] if channels <= WORD else words(draws, 0, -(-channels // WORD)).repeat(WORD, axis=1)
    bits = (many[:, :channels] >> _SHIFTS[np.arange(channels) % WORD]) & np.uint64(1)
    return np.where(bits, size, -size)[:, :, None, None]


def _places(draws: Words, h: int, w: int, side: int) -> tuple[Any, ...]:
    """Return the index of one window per image, last row and column included."""
    top = below(draws, h - side + 1)
    left = below(draws << np.uint64(32), w - side + 1)
    return np.arange(len(draws)), slice(None), top, left


def start_linf(x: FloatNCHW, seeds: Words, eps: np.float32) -> FloatNCHW:
    """Vertical stripes of ``-eps`` and ``+eps``, one colour per column and channel."""
    _, c, _, w = x.shape
    stripes = np.where(uniform(seeds, (c, 1, w), stream=_START) < 0.5, -eps, eps)
    result: FloatNCHW = np.clip(x + stripes, 0, 1)
    return result


def side_linf(area: float, shape: tuple[int, ...]) -> int:
    """Return the side of a square that covers a share ``area`` of the image, at least one pixel."""
    _, h, w = shape
    return min(max(round(math.sqrt(area * h * w)), 1), h, w)


def propose_linf(
    current: FloatNCHW, x: FloatNCHW, side: int, draws: Words, eps: np.float32
) -> tuple[FloatNCHW, Settle]:
    """Paint one square per image with ``x - eps`` or ``x + eps``, per channel; ``draws`` is ``(N, 2)``.

    Works in place: the candidates are ``current`` itself until it is settled which squares stay.
    """
    _, c, h, w = x.shape
    place = every, _, top, left = _places(draws[:, 0], h, w, side)
    view = windows(current, side)
    before, original = view[place], windows(x, side)[place]
    colour = signs(draws[:, 1], c, eps)
    square = _clipped(original + colour)
    idle = (square == before).reshape(len(x), -1).all(axis=1)
    if idle.any():
        square[idle] = _clipped(original[idle] - colour[idle])
    view[place] = square

    def settle(kept: npt.NDArray[np.bool_]) -> None:
        back = ~kept
        view[every[back], :, top[back], left[back]] = before[back]

    return current, settle


def _clipped(images: FloatNCHW) -> FloatNCHW:
    """Clip to [0, 1] in place."""
    np.maximum(images, np.float32(0), out=images)
    return np.minimum(images, np.float32(1), out=images)


def start_tiles(x: FloatNCHW, seeds: Words, eps: np.float32, *, order: Order) -> FloatNCHW:
    """Tile the image with bumps, five to a side, each with a random sign per channel and orientation per tile."""
    n, c, h, w = x.shape
    side = max(min(h, w) // 5, 1)
    down, across = h // side, w // side
    top, left = (h - side * down) // 2, (w - side * across) // 2
    colour = np.where(uniform(seeds, (c, down, across), stream=_START) < 0.5, np.float32(-1), np.float32(1))
    turned = uniform(seeds, (1, down, across), stream=_START + 1) < 0.5
    tile = bump(side, order)
    tiles = np.where(turned[..., None, None], tile, tile.T) * colour[..., None, None]
    delta = np.zeros_like(x)
    area = tiles.transpose(0, 1, 2, 4, 3, 5).reshape(n, c, down * side, across * side)
    delta[:, :, top : top + down * side, left : left + across * side] = area
    return _spent(x, delta, eps, order)


def side_odd(area: float, shape: tuple[int, ...]) -> int:
    """Return the odd side, at least three, of a square that covers a share ``area`` of the image."""
    _, h, w = shape
    side = max(round(math.sqrt(area * h * w)), 3)
    return min(side + 1 - side % 2, h, w)


def propose_mass(
    current: FloatNCHW, x: FloatNCHW, side: int, draws: Words, eps: np.float32, *, order: Order
) -> tuple[FloatNCHW, Settle]:
    """Move the mass of a second window, and what the budget has left, into a first one; ``draws`` is ``(N, 3)``."""
    _, c, h, w = x.shape
    first, second = _places(draws[:, 0], h, w, side), _places(draws[:, 1], h, w, side)
    delta = current - x
    unused = np.maximum(eps**order - _mass(delta, order).sum(axis=1, keepdims=True), 0)
    view = windows(delta, side)
    old = view[first]
    mass = _mass(old, order)
    view[first] = 0
    mass += _mass(view[second], order)  # the overlap of the two windows is already counted
    view[second] = 0
    turned = (draws[:, 2] >> np.uint64(63)).astype(bool)[:, None, None, None]
    tile = bump(side, order)
    shape = np.where(turned, tile.T, tile) * signs(words(draws[:, 2], 0, 1)[:, 0], c, np.float32(1))
    shape = shape + old / np.maximum(_length(old, order), _TINY)
    gain = c if order == 1 else 1  # in l1 more than the budget, which the projection then takes from the small values
    view[first] = shape / np.maximum(_length(shape, order), _TINY) * (gain * (unused / c + mass) ** (1 / order))
    candidate = _spent(x, delta, eps, order)

    def settle(kept: npt.NDArray[np.bool_]) -> None:
        current[kept] = candidate[kept]

    return candidate, settle


def _mass(delta: npt.NDArray[np.float32], order: Order) -> npt.NDArray[np.float32]:
    """Return the sum of squares (order 2) or of sizes (1) per image and channel, ``(N, C, 1, 1)``."""
    if order == 1:
        sizes: npt.NDArray[np.float32] = np.abs(delta).sum(axis=(2, 3), keepdims=True)
        return sizes
    sums: npt.NDArray[np.float32] = np.einsum("nchw,nchw->nc", delta, delta)
    return sums[:, :, None, None]


def _length(delta: npt.NDArray[np.float32], order: Order) -> npt.NDArray[np.float32]:
    mass = _mass(delta, order)
    return mass if order == 1 else np.sqrt(mass)


def _spent(x: FloatNCHW, delta: npt.NDArray[np.float32], eps: np.float32, order: Order) -> FloatNCHW:
    """Return the images at distance ``eps`` in l2; in l1 those nearest to ``x + delta`` inside the budget."""
    if order == 1:
        room = np.where(delta > 0, 1 - x, x).astype(np.float64)
        return np.asarray(x + shrink_l1(delta.astype(np.float64), room, float(eps) * (1 - 1e-6)), dtype=np.float32)
    length: npt.NDArray[np.float32] = np.sqrt(_mass(delta, order).sum(axis=1, keepdims=True))
    result: FloatNCHW = np.clip(x + delta * (eps / np.maximum(length, _TINY)), 0, 1)
    return result


@lru_cache(maxsize=64)
def bump(side: int, order: Order = 2) -> npt.NDArray[np.float32]:
    """Return the pattern of the l2 and l1 attacks, ``(side, side)`` of length 1 in that norm: a hill above a valley.

    Section 4.3 of the paper has the one for l2. The l1 attack is the authors' later addition to AutoAttack; its hills
    are steeper.
    """
    hills = np.concatenate([_hill(side // 2, side, order), -_hill(side - side // 2, side, order)])
    tile: npt.NDArray[np.float32] = (hills / _size(hills, order)).astype(np.float32)
    tile.flags.writeable = False
    return tile


def _hill(height: int, width: int, order: Order) -> npt.NDArray[np.float64]:
    """Return nested rectangles around the centre, step ``k`` adding ``1 / (k + 1)^2``, or to the fourth power in l1."""
    hill = np.zeros((height, width))
    if height == 0:
        return hill
    top, left = height // 2, width // 2
    for k in range(max(height, width) // 2 + 1):
        rows = slice(max(top - k, 0), min(top + k + 1, height))
        columns = slice(max(left - k, 0), min(left + k + 1, width))
        hill[rows, columns] += 1 / (k + 1) ** (2 if order == 2 else 4)
    hill /= _size(hill, order)
    return hill


def _size(hill: npt.NDArray[np.float64], order: Order) -> float:
    return float(np.linalg.norm(hill.ravel(), order))


MOVES = {
    "linf": Moves(start=start_linf, side=side_linf, propose=propose_linf, draws=2),
    "l2": Moves(start=partial(start_tiles, order=2), side=side_odd, propose=partial(propose_mass, order=2), draws=3),
    "l1": Moves(start=partial(start_tiles, order=1), side=side_odd, propose=partial(propose_mass, order=1), draws=3),
}
