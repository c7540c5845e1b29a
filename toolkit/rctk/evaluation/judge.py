"""Attacks one model on a split and judges the outcome with that model itself. Imports no torch."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from rctk.attacks.attack import Attack, Predict, Rows, TorchModule
from rctk.data.split import Split
from rctk.evaluation.counting import Counted, clean_classes
from rctk.evaluation.crafting import CRAFTERS, Cost, Crafter, group_size, groups
from rctk.progress import Progress, Silent
from rctk.threat import ThreatModel
from rctk_export.input_spec import FloatNCHW

Flags: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """What one attack did to one model.

    Attributes:
        clean: ``(N,)``; the image as it is is classified correctly.
        robust: ``(N,)``; it is, and its stored adversarial image is too.
        adversarial: ``(N, C, H, W)``; the candidate inside the budget, or the original where that is misclassified.
        linf: ``(N,)``; largest change of a pixel.
        l2: ``(N,)``; length of the change.
        queries: ``(N,)``; images that the model under test classified, the clean and the final pass included.
        forward_passes: Images that went forward through the differentiable model.
        backward_passes: Images that a gradient came back for.
        zero_gradient_share: Share of those gradients that were zero in every pixel; where it is not small, a gradient
            attack was blind and its robust accuracy means nothing.
        seconds: Wall time of everything.
        attack: Name of the attack.
        settings: Settings of attack and threat model, seed and batch size.
        notes: Sentences about what a reader should know.
    """

    clean: Flags
    robust: Flags
    adversarial: FloatNCHW
    linf: npt.NDArray[np.float32]
    l2: npt.NDArray[np.float32]
    queries: npt.NDArray[np.int64]
    forward_passes: int
    backward_passes: int
    zero_gradient_share: float
    seconds: float
    attack: str
    settings: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def samples(self) -> int:
        """Number of images."""
        return len(self.clean)

    @property
    def clean_accuracy(self) -> float:
        """Share of images classified correctly."""
        return float(self.clean.mean())

    @property
    def robust_accuracy(self) -> float:
        """Share of images classified correctly as they are and under this attack: an upper bound on robustness."""
        return float(self.robust.mean())

    @property
    def mean_linf(self) -> float | None:
        """Mean largest change of a pixel over broken images; ``None`` where there are none."""
        broken = self.clean & ~self.robust
        return float(self.linf[broken].mean()) if broken.any() else None

    @property
    def mean_l2(self) -> float | None:
        """Mean length of the change over broken images; ``None`` where there are none."""
        broken = self.clean & ~self.robust
        return float(self.l2[broken].mean()) if broken.any() else None


def evaluate(  # noqa: PLR0913 - who, on what, by what, how much, then how
    predict: Predict,
    split: Split,
    attack: Attack,
    threat: ThreatModel,
    *,
    seed: int,
    batch_size: int = 64,
    model: TorchModule | None = None,
    progress: Progress | None = None,
) -> AttackResult:
    """Attack the images that ``predict`` gets right and classify all outcomes again in one last pass.

    Args:
        predict: The model under test: images in [0, 1] to logits.
        split: Images and labels.
        attack: What proposes candidates; it does not take part in judging them.
        threat: The budget that every candidate is projected into.
        seed: Same seed, same batch size and same machine: same result, bit for bit.
        batch_size: Most images in one pass.
        model: Differentiable form of the model under test, for gradient attacks: the ``torch.nn.Module`` itself, or the
            twin of an engine.
        progress: Told about every batch of images.

    Returns:
        What happened to every image. The robust accuracy is the one of the stored images, nothing else.
    """
    started = time.perf_counter()
    counted = Counted(predict, len(split), batch_size)
    clean = clean_classes(counted, split) == split.labels
    crafter = CRAFTERS.load(attack.kind)(attack, threat, seed, counted, model)
    adversarial, rows = split.images.copy(), np.flatnonzero(clean)
    replaced = 0
    with (progress or Silent()).stage(attack.name, len(rows)) as advance:
        for group in groups(rows, group_size(attack, batch_size, split.images[0].nbytes)):
            adversarial[group], bad = _strongest(crafter, counted, split, group)
            replaced += bad
            advance(len(group))
    robust = clean & (counted.classes(adversarial, np.arange(len(split))) == split.labels)
    cost = crafter.cost
    linf, l2 = distances(adversarial, split.images)
    return AttackResult(
        clean=clean,
        robust=robust,
        adversarial=adversarial,
        linf=linf,
        l2=l2,
        queries=counted.queries,
        forward_passes=cost.forward,
        backward_passes=cost.backward,
        zero_gradient_share=zero_gradient_share(cost),
        seconds=time.perf_counter() - started,
        attack=attack.name,
        settings=asdict(cast("Any", attack)) | {"threat": asdict(threat), "seed": seed, "batch_size": batch_size},
        notes=remarks(cost, replaced, counted.unbooked),
    )


def _strongest(crafter: Crafter, counted: Counted, split: Split, group: Rows) -> tuple[FloatNCHW, int]:
    """Return one candidate per image of ``group``, and how many were not finite.

    An attack that stops at success leaves its candidate just behind the border of its own model. Where the model under
    test disagrees there (an int8 engine against its twin, or after rounding to pixels), the attack goes on.
    """
    x, y = split.images[group], split.labels[group]
    images, stopped, replaced = crafter.craft(x, y, group)
    near = np.flatnonzero(stopped)
    near = near[counted.classes(images[near], group[near]) == y[near]]
    if len(near):
        pushed = crafter.craft(x[near], y[near], group[near], push=True)
        images[near] = pushed.images
        replaced += pushed.replaced
    return images, replaced


def distances(x: FloatNCHW, x0: FloatNCHW) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the linf and the l2 distance of each image, ``(N,)`` both."""
    flat = (x - x0).reshape(len(x), -1)
    return np.abs(flat).max(axis=1), np.sqrt(np.einsum("nd,nd->n", flat, flat))


def zero_gradient_share(cost: Cost) -> float:
    """Return the share of gradients that were zero in every pixel; 0 where none was taken."""
    return cost.zero_gradients / cost.backward if cost.backward else 0.0


def remarks(cost: Cost, replaced: int, unbooked: int) -> tuple[str, ...]:
    """Word what a reader should know about an attack that ran."""
    notes = []
    if cost.zero_gradients:
        notes.append(
            f"{cost.zero_gradients} of {cost.backward} gradients were zero: gradients may be masked, so read the "
            "robust accuracy of a gradient attack with a query attack beside it"
        )
    if replaced:
        notes.append(f"{replaced} candidates held NaN or infinite pixels and were replaced by their originals")
    if unbooked:
        notes.append(f"{unbooked} queries were not booked to single images; only their total is known")
    return tuple(notes)
