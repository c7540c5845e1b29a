"""What every attack offers: it proposes images near the originals. It never reports success; the judge does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from rctk.data.split import Labels
from rctk.threat import ThreatModel
from rctk_export.input_spec import FloatNCHW, FloatNK

Predict: TypeAlias = Callable[[FloatNCHW], FloatNK]
"""Images in [0, 1] to logits; usually the ``predict`` of an engine."""
Rows: TypeAlias = npt.NDArray[np.int64]
"""Positions ``(n,)`` of images within the batch that an attack was given."""
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
    gives every image a stream of its own; then a result does not depend on how images were batched.
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


@runtime_checkable
class Ledger(Protocol):
    """A ``predict`` that books each query to the image it is about."""

    def book(self, rows: Rows) -> None:
        """Say which images the next query is about."""
        ...


def ask(predict: Predict, images: FloatNCHW, rows: Rows) -> FloatNK:
    """Query ``predict`` about ``images``, the candidates for positions ``rows``; ``(n, K)`` logits."""
    ledger: object = predict
    if isinstance(ledger, Ledger):
        ledger.book(rows)
    return predict(images)


def margin(logits: FloatNK, y: Labels) -> FloatNK:
    """Return the true logit minus the largest other one, ``(N,)``; negative where the image is misclassified.

    Example:
        >>> margin(np.array([[3.0, 1.0, 2.0]], dtype=np.float32), np.array([0]))
        array([1.], dtype=float32)
    """
    rows = np.arange(len(logits))
    others = logits.copy()
    others[rows, y] = -np.inf
    result: FloatNK = logits[rows, y] - others.max(axis=1)
    return result
