"""The nearest image inside an l1 ball and inside [0, 1] at once, in NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def shrink_l1(delta: Floats, room: Floats, radius: float) -> Floats:
    """Return the differences nearest to ``delta`` with an l1 length of at most ``radius`` and sizes up to ``room``.

    Every size loses the same amount ``t`` and is then cut to ``room``, and ``t`` is the smallest one for which the
    sum fits. Clipping after an ordinary l1 projection would end short of the radius and not at the nearest point.

    Args:
        delta: ``(N, ...)``.
        room: ``(N, ...)``; how far each value may go in the direction of its sign.
        radius: Largest sum of sizes.

    Reference:
        Croce and Hein, "Mind the Box: l1-APGD for Sparse Adversarial Attacks on Image Classifiers", ICML 2021,
        proposition 2.1. https://arxiv.org/abs/2103.01208

    Example:
        >>> shrink_l1(np.array([[0.9, -0.5, 0.1]]), np.array([[0.4, 1.0, 1.0]]), 0.7)
        array([[ 0.4, -0.3,  0. ]])
    """
    size, limit = np.abs(delta).reshape(len(delta), -1), room.reshape(len(delta), -1)
    cut = np.minimum(size, limit)
    long = np.flatnonzero(cut.sum(axis=1) > radius)
    if len(long):
        t = _threshold(size[long], limit[long], radius)
        cut[long] = np.clip(size[long] - t[:, None], 0, limit[long])
    return np.asarray(np.sign(delta) * cut.reshape(delta.shape))


def _threshold(size: Floats, limit: Floats, radius: float) -> Floats:
    """Return per row the ``t`` at which the sum of ``clip(size - t, 0, limit)`` falls to ``radius``.

    The sum is piecewise linear: a value starts to shrink at ``size - limit``, or at once, and is zero from ``size`` on.
    """
    starts = np.maximum(size - limit, 0)
    corners = np.concatenate([starts, size], axis=1)
    order = np.argsort(corners, axis=1)
    corners = np.take_along_axis(corners, order, axis=1)
    shrinking = np.where(order < size.shape[1], 1, -1).cumsum(axis=1)  # how many values shrink after each corner
    falls = shrinking[:, :-1] * np.diff(corners, axis=1)
    sums = np.minimum(size, limit).sum(axis=1, keepdims=True) - np.cumsum(falls, axis=1)
    rows = np.arange(len(size))
    last = np.minimum((sums > radius).sum(axis=1), sums.shape[1] - 1)  # the sum reaches the radius after this corner
    above = sums[rows, last] + falls[rows, last]
    result: Floats = corners[rows, last] + (above - radius) / np.maximum(shrinking[rows, last], 1)
    return result
