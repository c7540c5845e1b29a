"""Runs the searches of many images side by side, so that every call of the engine carries questions about all of them.

A search is a generator about *one* image: it yields the images it wants classified, ``(n, C, H, W)``, and is sent what
the model says about them, ``(n,)``. So each attack reads like its paper, and the loop over images, the packing of
questions, the query budget and the parting of broken images are written once, here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rctk.attacks.attack import Predict, margins, query
from rctk.attacks.case import Case
from rctk.data.split import Labels
from rctk_export.input_spec import FloatNCHW, FloatNK

Reply: TypeAlias = npt.NDArray[Any]
Search: TypeAlias = Generator[FloatNCHW, Reply, None]
Hear: TypeAlias = Callable[[FloatNK, Labels], Reply]
"""Logits ``(n, K)`` and true labels ``(n,)`` to what a search may know, ``(n,)``."""

CHUNK = 64
"""Most images that a search asks about at once; fixed, so that sums do not depend on the batch."""
PACK = 2**25
"""Pixel values in one pack of questions, 128 MiB; images beyond it wait until others are done."""


def fooled(logits: FloatNK, y: Labels) -> Reply:
    """Hear labels only: ``(n,)`` bool, whether the predicted class is another than the true one."""
    result: Reply = logits.argmax(axis=1) != y
    return result


def margin(logits: FloatNK, y: Labels) -> Reply:
    """Hear the true logit minus the largest other one, ``(n,)``."""
    return margins(logits, y)


def log_probability(logits: FloatNK, y: Labels) -> Reply:
    """Hear the logarithm of the true class's probability, ``(n,)`` float64; does not saturate near probability 1."""
    z = logits.astype(np.float64)
    z -= z[np.arange(len(z)), y][:, None]
    top = z.max(axis=1)
    others = np.exp(z - top[:, None])
    others[np.arange(len(z)), y] = 0  # log(1 + s) keeps a sum s far below the resolution of 1
    rest = others.sum(axis=1)
    result: Reply = -np.where(top > 0, top + np.log(np.exp(-top) + rest), np.log1p(rest))
    return result


@dataclass
class _Turn:
    case: Case
    search: Search
    images: FloatNCHW


def lockstep(predict: Predict, y: Labels, cases: Sequence[Case], search: Callable[[Case], Search], hear: Hear) -> None:
    """Advance the searches of all cases together until each is broken, out of queries, or at its end.

    A case is broken, and left at once, when the predicted class of an image inside its budget is not the true one. That
    image then is ``case.best``; otherwise it is what the search offered.

    Args:
        predict: The model under attack.
        y: True labels ``(N,)`` of the batch that ``case.row`` refers to.
        cases: The images to attack.
        search: Starts the search of one case. It must not ask about more images than ``case.left``.
        hear: What the searches may know; for an attack on labels, :func:`fooled`.
    """
    waiting = iter(cases)
    turns: list[_Turn] = []
    while True:
        turns = _admit(turns, waiting, search)
        if not turns:
            return
        counts = [len(turn.images) for turn in turns]
        images = np.concatenate([turn.images for turn in turns])
        rows = np.repeat(np.array([turn.case.row for turn in turns]), counts)
        logits = query(predict, images, rows)
        truth = y[rows]
        heard, broken = hear(logits, truth), fooled(logits, truth)
        ends = np.cumsum([0, *counts])
        parts = [slice(start, stop) for start, stop in pairwise(ends.tolist())]
        turns = [
            turn
            for turn, part in zip(turns, parts, strict=True)
            if _advance(turn, heard[part], np.flatnonzero(broken[part]))
        ]


def _admit(turns: list[_Turn], waiting: Iterator[Case], start: Callable[[Case], Search]) -> list[_Turn]:
    """Open searches until the next pack is full or no case waits."""
    values = sum(turn.images.size for turn in turns)
    while values < PACK and (case := next(waiting, None)) is not None:
        search = start(case)
        turn = _Turn(case, search, case.x[None][:0])
        if _asks(turn, None):
            turns.append(turn)
            values += turn.images.size
    return turns


def _advance(turn: _Turn, heard: Reply, broken: npt.NDArray[np.int64]) -> bool:
    """Book the questions, hand over the answers, and say whether the search asks on."""
    case, asked = turn.case, turn.images
    case.left -= len(asked)
    if len(broken):
        won = broken[case.inside(asked[broken])]
        if len(won):
            case.best = asked[won[0]].copy()
            turn.search.close()
            return False
    return _asks(turn, heard)


def _asks(turn: _Turn, heard: Reply | None) -> bool:
    """Let the search run to its next question; ``False`` at its end, and where no query is left."""
    try:
        turn.images = next(turn.search) if heard is None else turn.search.send(heard)
    except StopIteration:
        return False
    if not turn.case.left:
        turn.search.close()
        return False
    assert 0 < len(turn.images) <= turn.case.left
    return True
