"""What every attack offers: it proposes images near the originals. It never reports success; the judge does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from rctk.data.split import Labels
from rctk.threat import Norm, ThreatModel
from rctk_export.input_spec import FloatNCHW, FloatNK
from rctk_kernels.errors import AttackError

Predict: TypeAlias = Callable[[FloatNCHW], FloatNK]
"""Images in [0, 1] to logits that the caller owns; usually the ``predict`` of an engine."""
Rows: TypeAlias = npt.NDArray[np.int64]
"""Positions ``(n,)`` of images within the batch that an attack was given."""
FloatN: TypeAlias = npt.NDArray[np.float32]
Kind: TypeAlias = Literal["gradient", "query"]


class TorchModule(Protocol):
    """A ``torch.nn.Module``, described without importing torch, so that device-side code can name it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the logits of a batch."""
        ...

    def modules(self) -> Iterator[Any]:
        """Yield every submodule."""
        ...

    def parameters(self, recurse: bool = ...) -> Iterator[Any]:
        """Yield every parameter."""
        ...


class QueryAttack(Protocol):
    """Searches with logits alone; written in NumPy, so it runs against any engine on any device.

    All batches of one evaluation get generators in the same state. Draw through :mod:`rctk.attacks.draws`, which
    gives every image a stream of its own; then a result does not depend on how images were batched. With
    ``packs = True`` an attack gets several batches at once, and the judge's ``predict`` cuts them to size.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]

    @property
    def passes(self) -> int:
        """Most model passes that one image can cost; a forward and a backward pass count one each."""
        ...

    def __call__(
        self, predict: Predict, x: FloatNCHW, y: Labels, threat: ThreatModel, rng: np.random.Generator
    ) -> FloatNCHW:
        """Return one candidate per image of ``x`` ``(N, C, H, W)``; ``y`` ``(N,)`` are the true labels."""
        ...


class GradientAttack(Protocol):
    """Searches with gradients of a torch model that maps images in [0, 1] to logits.

    ``x`` is a float32 tensor ``(N, C, H, W)``, ``y`` an int64 tensor ``(N,)``, ``generator`` a ``torch.Generator`` on
    the CPU; a tensor shaped like ``x`` comes back. The types are loose here because this module runs without torch.
    What :class:`QueryAttack` says about randomness holds here too.

    An attack that never has more images in the model than its ``batch_size`` (as :func:`rctk.attacks.gradients.look`
    sees to) says ``packs = True`` and then gets several batches at once, whose survivors share the later ones.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]

    @property
    def passes(self) -> int:
        """Most model passes that one image can cost; a forward and a backward pass count one each."""
        ...

    def __call__(self, model: Any, x: Any, y: Any, threat: ThreatModel, generator: Any) -> Any:
        """Return one candidate per image of ``x``."""
        ...


Attack: TypeAlias = QueryAttack | GradientAttack


def kind(attack: Attack) -> Kind:
    """Say what an attack needs: ``gradient`` (a torch model) or ``query`` (an engine's logits)."""
    return attack.kind


def norms(attack: Attack) -> tuple[Norm, ...]:
    """Return the norms of the budgets that an attack can search in: its ``norms``, by default linf and l2."""
    known: tuple[Norm, ...] = getattr(attack, "norms", ("linf", "l2"))
    return known


def require_norm(attack: Attack, threat: ThreatModel) -> None:
    """Refuse a budget that the attack does not know."""
    if threat.norm not in norms(attack):
        known = " and ".join(norms(attack))
        raise AttackError(
            f"{attack.name} runs in {known}, got {threat.norm}; take another attack or --norm {norms(attack)[0]}"
        )


class Answer(NamedTuple):
    """What the model under attack says about candidates.

    Attributes:
        margin: ``(n,)``; true logit minus the largest other one.
        broken: ``(n,)`` bool; the predicted class is not the true one. A tie, with margin 0, is decided by the
            model's own argmax and is no success by itself.
    """

    margin: FloatN
    broken: npt.NDArray[np.bool_]


def query(predict: Predict, images: FloatNCHW, rows: Rows) -> FloatNK:
    """Return the logits of candidates ``images`` ``(n, C, H, W)`` for the images at positions ``rows`` ``(n,)``.

    A ``predict`` that has a method ``book(rows)``, as the judge's has, is told which images the query is about.
    """
    book = getattr(predict, "book", None)
    if book is not None:
        book(rows)
    return predict(images)


def ask(predict: Predict, images: FloatNCHW, y: Labels, rows: Rows) -> Answer:
    """Query ``predict`` about candidates ``images`` ``(n, C, H, W)`` for positions ``rows``, whose labels are ``y``.

    Example:
        >>> images, rows = np.zeros((2, 1, 1, 1), dtype=np.float32), np.arange(2)
        >>> ask(lambda _: np.array([[3.0, 1.0, 2.0], [0.0, 0.0, -1.0]]), images, np.array([0, 1]), rows)
        Answer(margin=array([1., 0.]), broken=array([False,  True]))
    """
    logits = query(predict, images, rows)
    return Answer(margin=margins(logits, y), broken=logits.argmax(axis=1) != y)


def margins(logits: FloatNK, y: Labels) -> FloatN:
    """Return the true logit minus the largest other one, ``(n,)``."""
    every = np.arange(len(logits))
    others = logits.copy()
    others[every, y] = -np.inf
    result: FloatN = logits[every, y] - others.max(axis=1)
    return result
