"""A model under audit, with attack results that several checks share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rctk.attacks import ATTACKS
from rctk.attacks.attack import Predict
from rctk.attacks.gradients import frozen
from rctk.attacks.losses import Loss, cross_entropy, negative_margin
from rctk.data.split import Split
from rctk.evaluation.judge import AttackResult, evaluate
from rctk.threat import ThreatModel
from rctk_export.input_spec import FloatNK

LossName = Literal["ce", "margin"]
LOSSES: dict[LossName, Loss] = {"ce": cross_entropy, "margin": negative_margin}
Flags = npt.NDArray[np.bool_]


@dataclass(kw_only=True)
class Examined:
    """One form of a model: what is judged, and what is differentiated.

    Attributes:
        name: Such as ``float`` or ``engine``.
        predict: Images in [0, 1] to what should be logits.
        model: Differentiable form; the twin of an engine. None leaves only the checks that need none.
        split: Images and labels.
        threat: The budget that is audited.
        parent: The float form, for transfer and fidelity.
        seed: Of all attacks.
        batch_size: Most images in one pass.
    """

    name: str
    predict: Predict
    model: nn.Module | None
    split: Split
    threat: ThreatModel
    parent: Examined | None = None
    seed: int = 0
    batch_size: int = 64
    _results: dict[Any, AttackResult] = field(default_factory=dict, repr=False)
    _left: dict[tuple[str, ...], Flags] = field(default_factory=dict, repr=False)

    @cached_property
    def logits(self) -> FloatNK:
        """Answers on the clean images, ``(N, K)``."""
        parts = [self.predict(images) for images, _ in self.split.batches(self.batch_size)]
        return np.concatenate(parts)

    @property
    def samples(self) -> int:
        """Number of images."""
        return len(self.split)

    def attacked(self, attack: str, *, factor: float = 1.0, scale: float | None = None, again: int = 0) -> AttackResult:
        """Return the outcome of an attack, from memory where it ran before.

        Args:
            attack: Attack with settings.
            factor: Multiplies eps; at most 1 in linf whatever it says.
            scale: Multiplies the logits of the differentiable form before the attack sees them.
            again: Number of a further run from other random starts.
        """
        key = (attack, factor, scale, again)
        if key not in self._results:
            model = self.model if scale is None or self.model is None else Scaled(self.model, scale)
            self._results[key] = evaluate(
                self.predict,
                self.split,
                ATTACKS.build(attack),
                self.budget(factor),
                seed=self.seed + again,
                batch_size=self.batch_size,
                model=model,
            )
        return self._results[key]

    def robust(self, attack: str, *, factor: float = 1.0, scale: float | None = None, again: int = 0) -> Flags:
        """Return which images survive, ``(N,)``; see :meth:`attacked`."""
        return self.attacked(attack, factor=factor, scale=scale, again=again).robust

    def surviving(self, attacks: Sequence[str]) -> Flags:
        """Return which images survive every attack, ``(N,)``; each meets only what those before it left."""
        known = tuple(attacks)
        if known not in self._left:
            left = self.logits.argmax(axis=1) == self.split.labels
            for attack in known:
                left &= self._on(attack, left)
            self._left[known] = left
        return self._left[known].copy()

    def _on(self, attack: str, rows: Flags) -> Flags:
        """Attack some images, or take the outcome for all of them from memory; ``(N,)``, true elsewhere."""
        if rows.all() or (attack, 1.0, None, 0) in self._results:
            return self.robust(attack)
        robust = np.ones_like(rows)
        if rows.any():
            some = replace(self, split=self.split.take(np.flatnonzero(rows)), _results={}, _left={})
            robust[rows] = some.robust(attack)
        return robust

    def budget(self, factor: float) -> ThreatModel:
        """Return the threat model with eps times ``factor``."""
        eps = self.threat.eps * factor
        return ThreatModel(norm=self.threat.norm, eps=min(eps, 1.0) if self.threat.norm == "linf" else eps)

    def gradients(self, loss: LossName, *, noise: bool = False) -> Tensor:
        """Return input gradients of a loss on clean images, or with ``noise`` on a random start, ``(N, C, H, W)``."""
        assert self.model is not None
        generator = torch.Generator().manual_seed(self.seed)
        made = []
        with frozen(self.model):
            for images, labels in self.split.batches(self.batch_size):
                x, y = torch.from_numpy(images), torch.from_numpy(labels)
                if noise:
                    shift = (2 * torch.rand(x.shape, generator=generator) - 1) * self.threat.eps
                    x = (x + shift).clamp(0, 1)
                made.append(_gradient(self.model, x, y, loss))
        return torch.cat(made)


def _gradient(model: nn.Module, x: Tensor, y: Tensor, loss: LossName) -> Tensor:
    """Return the gradient, all zero where no path leads from the logits to the image."""
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        logits = model(leaf)
        if not logits.requires_grad:
            return torch.zeros_like(x)
        (gradient,) = torch.autograd.grad(LOSSES[loss](logits, y, y).sum(), leaf, allow_unused=True)
    return torch.zeros_like(x) if gradient is None else gradient.detach()


class Scaled(nn.Module):
    """``model`` with its logits multiplied by ``factor``; predictions stay the same."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, images: Tensor) -> Tensor:
        """Return the scaled logits ``(N, K)``."""
        logits: Tensor = self.model(images) * self.factor
        return logits
