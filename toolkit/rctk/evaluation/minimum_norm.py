"""How far the nearest misclassified image is: minimum-norm attacks judged without a budget. Imports no torch."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from rctk.attacks.attack import Attack, Predict, TorchModule, norms
from rctk.data.split import Split
from rctk.evaluation.counting import Counted, clean_classes
from rctk.evaluation.crafting import CRAFTERS, group_size, groups
from rctk.evaluation.judge import Flags, remarks, zero_gradient_share
from rctk.progress import Progress, Silent
from rctk.threat import Norm, ThreatModel
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import AttackError

SCALES: dict[Norm, float] = {"linf": 0.1, "l2": 1.0, "l1": 5.0}
"""Budget that random restarts of an attack are drawn from."""
NOTHING = 1e-6
"""Budget for attacks that end their search inside it: they never get there."""


@dataclass(frozen=True, kw_only=True)
class MinimumNorm:
    """What one attack found, image by image.

    Attributes:
        norm: How distances are measured.
        clean: ``(N,)``; the image as it is is classified correctly.
        distance: ``(N,)``; to the adversarial image found, 0 where the image is misclassified as it is, infinite where
            nothing was found: an upper bound on the distance to the nearest one.
        adversarial: ``(N, C, H, W)`` in [0, 1]; the original where nothing was found.
        queries: ``(N,)``; images that the model under test classified.
        forward_passes: Images that went forward through the differentiable model.
        backward_passes: Images that a gradient came back for.
        zero_gradient_share: Share of those gradients that were zero in every pixel.
        seconds: Wall time of everything.
        attack: Name of the attack.
        settings: Settings of the attack, norm, seed and batch size.
        notes: Sentences about what a reader should know.
    """

    norm: Norm
    clean: Flags
    distance: npt.NDArray[np.float64]
    adversarial: FloatNCHW
    queries: npt.NDArray[np.int64]
    forward_passes: int
    backward_passes: int
    zero_gradient_share: float
    seconds: float
    attack: str
    settings: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def found(self) -> Flags:
        """Say for which correctly classified images an adversarial was found, ``(N,)``."""
        return self.clean & np.isfinite(self.distance)

    @property
    def success_rate(self) -> float:
        """Share of the correctly classified images for which an adversarial was found; 0 where there are none."""
        return float(self.found.sum() / max(self.clean.sum(), 1))

    @property
    def median(self) -> float:
        """Median distance of correctly classified images, failures counted as infinite; NaN where there are none."""
        return float(np.median(self.distance[self.clean])) if self.clean.any() else math.nan

    @property
    def mean(self) -> float | None:
        """Mean distance over successes; ``None`` where there are none. Compare it only at equal success rates."""
        return float(self.distance[self.found].mean()) if self.found.any() else None

    def robust_accuracy(self, eps: float) -> float:
        """Return the share of images that are correct and farther than ``eps`` from all that was found."""
        return float((self.clean & (self.distance > eps)).mean())


def minimum_norm(  # noqa: PLR0913 - who, on what, by what, how measured, then how
    predict: Predict,
    split: Split,
    attack: Attack,
    norm: Norm,
    *,
    seed: int,
    batch_size: int = 64,
    model: TorchModule | None = None,
    progress: Progress | None = None,
) -> MinimumNorm:
    """Let a minimum-norm attack run to its end and measure how far it had to go.

    Candidates are clipped to [0, 1] and classified again by ``predict``; nothing else bounds them. Attacks whose size
    is given by a budget, such as ``pgd``, are refused.

    Args:
        predict: The model under test: images in [0, 1] to logits.
        split: Images and labels.
        attack: Such as ``fmn``, ``fab-t``, ``deepfool``, ``cw-l2``, ``wrm``, or a label attack such as ``hopskipjump``.
        norm: How distances are measured, and what attacks minimise that can do so in several norms.
        seed: Same seed, same batch size and same machine: same result, bit for bit.
        batch_size: Most images in one pass.
        model: Differentiable form of the model under test, for gradient attacks.
        progress: Told about every batch of images.
    """
    started = time.perf_counter()
    search = _Unbudgeted(attack, norm)
    counted = Counted(predict, len(split), batch_size)
    clean = clean_classes(counted, split) == split.labels
    box = ThreatModel(norm=norm, eps=_whole_box(norm, split.images[0].size))
    crafter = CRAFTERS.load(attack.kind)(cast("Attack", search), box, seed, counted, model)
    adversarial, rows, replaced = split.images.copy(), np.flatnonzero(clean), 0
    with (progress or Silent()).stage(attack.name, len(rows)) as advance:
        for group in groups(rows, group_size(attack, batch_size, split.images[0].nbytes)):
            proposal = crafter.craft(split.images[group], split.labels[group], group)
            adversarial[group] = proposal.images
            replaced += proposal.replaced
            advance(len(group))
    broken = counted.classes(adversarial, np.arange(len(split))) != split.labels
    adversarial[~broken] = split.images[~broken]
    reached = lengths(adversarial - split.images, norm)
    cost = crafter.cost
    return MinimumNorm(
        norm=norm,
        clean=clean,
        distance=np.where(~clean, 0, np.where(broken, reached, np.inf)),
        adversarial=adversarial,
        queries=counted.queries,
        forward_passes=cost.forward,
        backward_passes=cost.backward,
        zero_gradient_share=zero_gradient_share(cost),
        seconds=time.perf_counter() - started,
        attack=attack.name,
        settings=asdict(cast("Any", search.attack)) | {"norm": norm, "seed": seed, "batch_size": batch_size},
        notes=remarks(cost, replaced, counted.unbooked),
    )


def lengths(delta: FloatNCHW, norm: Norm) -> npt.NDArray[np.float64]:
    """Return the length of each difference, ``(N,)``."""
    flat = np.abs(delta.reshape(len(delta), -1).astype(np.float64))
    if norm == "linf":
        return np.asarray(flat.max(axis=1))
    return np.asarray(flat.sum(axis=1) if norm == "l1" else np.sqrt((flat**2).sum(axis=1)))


def _whole_box(norm: Norm, values: int) -> float:
    """Return the radius of a ball around any image that holds all of [0, 1]."""
    return {"linf": 1.0, "l2": math.sqrt(values), "l1": float(values)}[norm]


def require_minimum_norm(attack: Attack) -> None:
    """Refuse an attack that fills a budget instead of looking for the nearest image."""
    if not (getattr(attack, "minimum_norm", False) or getattr(attack, "labels_only", False)):
        raise AttackError(
            f"{attack.name} fills a budget and does not look for the nearest image; take a minimum-norm attack "
            "such as fmn, fab-t or deepfool, or evaluate it at several eps"
        )


class _Unbudgeted:
    """An attack that is not told the budget of its judge and goes on to the closest image."""

    def __init__(self, attack: Attack, norm: Norm) -> None:
        require_minimum_norm(attack)
        self.name, self.kind = attack.name, attack.kind
        self.norms = norms(attack)
        stops = hasattr(attack, "stop_in_budget")
        self.attack = dataclasses.replace(cast("Any", attack), stop_in_budget=False) if stops else attack
        self._threat = ThreatModel(norm=norm, eps=SCALES[norm] if stops else NOTHING)

    def __call__(self, model: Any, x: Any, y: Any, threat: ThreatModel, stream: Any) -> Any:
        """Return what the attack finds."""
        del threat
        method: Any = self.attack
        return method(model, x, y, self._threat, stream)
