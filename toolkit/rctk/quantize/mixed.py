"""``quant.mixed``: the fewest layers stay float that keep the drop of accuracy inside a margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from rctk.compress.step import Context, Draft
from rctk.data.split import Split
from rctk.exporting.files import MIRROR, plans_of, ranges_of
from rctk.progress import Progress
from rctk.quantize.sensitivity import Probe, drops, sensitivity, written
from rctk.threat import ThreatModel
from rctk_export.quantize import PLANNERS
from rctk_export.registry import unknown
from rctk_kernels.errors import MismatchError, OptionError


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """Keep float what costs most: clean and robust accuracy may fall by ``max_drop`` and no more.

    Attributes:
        max_drop: Largest drop of accuracy against the float graph, a share, for clean and for adversarial images.
        eps: Budget of those, linf.
        target: Whose file is measured.
        samples: Images to measure on: those for validation, or training images where there are none.
    """

    kind: ClassVar[Literal["graph"]] = "graph"
    role: ClassVar[str] = "margin"
    max_drop: float = 0.005
    eps: float = 8 / 255
    target: str = "cpu"
    samples: int = 512

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop < 1 or self.samples < 1:
            raise OptionError(
                f"quant.mixed needs 0 <= max_drop < 1 and at least 1 sample, got {self.max_drop} and {self.samples}"
            )
        ThreatModel(eps=self.eps)
        if self.target not in PLANNERS.names():
            raise unknown("target", self.target, PLANNERS.names())

    def __call__(self, draft: Draft, context: Context) -> Draft:
        """See :class:`rctk.compress.step.GraphStep`."""
        calibration = context.train.sample(512, context.seed)
        measured = (context.validation if len(context.validation) else context.train).sample(self.samples, context.seed)
        probe = Probe(draft.model, measured, eps=self.eps, seed=context.seed)
        return fewest_float(draft, (self.target,), calibration, probe, self.max_drop, context.progress)


def fewest_float(  # a search needs its subject, its images and its margin
    draft: Draft, targets: Sequence[str], calibration: Split, probe: Probe, max_drop: float, progress: Progress
) -> Draft:
    """Return ``draft`` with as few more layers in float as the margin needs.

    Layers join in the order of what each does alone, until the measured drop of every target is inside; then those that
    turned out not to be needed leave again. Greedy: another set of the same size may do as well.

    Args:
        draft: Where it is inside already, nothing changes.
        targets: Whose files are measured.
        calibration: For ranges that the draft leaves open.
        probe: Images to measure on; those that attack the quantized file are added.
        max_drop: Margin, a share.
        progress: Shows the search.

    Raises:
        MismatchError: Even with all layers but one in float the drop is larger.
    """
    if draft.form != "static":
        raise OptionError(f"a margin is kept for static int8, and this recipe writes a {draft.form} file; leave it out")
    targets = tuple(dict.fromkeys("tensorrt" if target == MIRROR else target for target in targets))
    known = replace(draft, ranges=ranges_of(draft, plans_of(draft, targets), calibration, progress))
    for target in targets:
        probe.attack(written(known, target))
    worst = _worst(known, targets, probe)
    if worst > max_drop:
        known, worst = _needed(known, targets, probe, max_drop, _ranked(known, targets, probe, progress), progress)
    added = [name for name in known.keep_float if name not in draft.keep_float]
    progress.note(margin_words(max_drop, worst, added, len(probe.split)))
    return replace(draft, keep_float=known.keep_float).noted(
        "quant.mixed", max_drop=max_drop, measured_drop=worst, kept_float=added, samples=len(probe.split)
    )


def margin_words(max_drop: float, measured_drop: float, kept_float: Sequence[str], samples: int) -> str:
    """Say what a margin cost, of which the facts of ``quant.mixed`` have the same names.

    Example:
        >>> margin_words(0.005, 0.0039, ["fc"], 512)
        'margin of 0.50 points: the worst drop is 0.39 points on 512 images, with fc in float'
    """
    layers = f"{', '.join(kept_float)} in float" if kept_float else "every layer in integers"
    drop = f"the worst drop is {100 * measured_drop:.2f} points on {samples} images"
    return f"margin of {100 * max_drop:.2f} points: {drop}, with {layers}"


def _worst(draft: Draft, targets: Sequence[str], probe: Probe) -> float:
    return max(max(drops(probe.reference, probe.judge(written(draft, target)))) for target in targets)


def _ranked(draft: Draft, targets: Sequence[str], probe: Probe, progress: Progress) -> list[str]:
    """Return the layers, the one that does most alone first."""
    most: dict[str, float] = {}
    for target in targets:
        for effect in sensitivity(draft, target, probe, progress):
            most[effect.layer] = max(most.get(effect.layer, 0.0), effect.divergence)
    return sorted(most, key=lambda layer: -most[layer])


def _needed(  # a search needs its subject, its margin and its order
    draft: Draft, targets: Sequence[str], probe: Probe, max_drop: float, ranked: list[str], progress: Progress
) -> tuple[Draft, float]:
    """Return the draft with the layers that have to stay float, and its drop."""
    with progress.stage("layers into float", len(ranked) - 1) as step:
        for count in range(1, len(ranked)):
            kept = ranked[:count]
            worst = _worst(_keeping(draft, kept), targets, probe)
            step(1)
            if worst <= max_drop:
                break
        else:
            raise MismatchError(
                f"with all layers but {ranked[-1]!r} in float, accuracy still drops by {worst:.2%}, more than "
                f"{max_drop:.2%}; raise --max-drop, or choose another --calibrator"
            )
    with progress.stage("layers back", len(kept) - 1) as step:
        for name in reversed(kept[:-1]):
            fewer = [other for other in kept if other != name]
            drop = _worst(_keeping(draft, fewer), targets, probe)
            step(1)
            if drop <= max_drop:
                kept, worst = fewer, drop
    return _keeping(draft, kept), worst


def _keeping(draft: Draft, names: Sequence[str]) -> Draft:
    return replace(draft, keep_float=(*draft.keep_float, *names))
