"""How candidates made for each form of a model fare on all the others."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rctk.attacks import ATTACKS
from rctk.attacks.attack import Attack, Rows
from rctk.data.split import Split
from rctk.evaluation.counting import Counted, clean_classes
from rctk.evaluation.crafting import CRAFTERS, Cost, group_size, groups
from rctk.evaluation.judge import Flags, remarks
from rctk.evaluation.shares import Share
from rctk.evaluation.subjects import Subject
from rctk.metrics.relative import TransferRate, transfer_rate
from rctk.progress import Progress, Silent
from rctk.threat import ThreatModel
from rctk_kernels.errors import AttackError, DataError, OptionError


@dataclass(frozen=True, kw_only=True)
class TransferMatrix:
    """Outcome of every source on every target, over the images that all targets get right.

    Attributes:
        samples: Images of the split, ``N``.
        rows: ``(n,)``; the images that all targets get right as they are.
        sources: Names of the subjects that candidates were made for.
        targets: Names of the subjects that they were tried on.
        robust: For each source and each target ``(n,)``; the target is right on the candidate made for the source.
        queries: For each target ``(N,)``; images that it classified.
        forward_passes: Images forward through differentiable models.
        backward_passes: Images that a gradient came back for.
        seconds: Wall time.
        settings: Attack, budget, seed and batch size.
        notes: What a reader should know.
    """

    samples: int
    rows: Rows
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    robust: Mapping[str, Mapping[str, Flags]]
    queries: Mapping[str, npt.NDArray[np.int64]]
    forward_passes: int
    backward_passes: int
    seconds: float
    settings: Mapping[str, Any]
    notes: tuple[str, ...]

    def robust_accuracy(self, source: str, target: str) -> Share:
        """Share of the ``n`` images on which ``target`` withstands the candidates made for ``source``."""
        return Share.of(self.robust[source][target])

    def transfer(self, source: str, target: str) -> TransferRate:
        """Return how many candidates that fool ``source`` fool ``target`` too; ask the other way round as well."""
        every = np.ones(len(self.rows), dtype=np.bool_)
        if source not in self.targets:
            raise OptionError(f"{source} only serves to craft on: nothing is known about what fools it")
        direct = self.robust[target][target] if target in self.sources else None
        return transfer_rate(every, self.robust[source][source], every, self.robust[source][target], direct)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values: shares with their counts and intervals, rates where the source is judged too."""
        pairs = [(source, target) for source in self.sources for target in self.targets]
        return {
            "samples": self.samples,
            "common": len(self.rows),
            "robust": [
                {"source": source, "target": target, **self.robust_accuracy(source, target)._asdict()}
                for source, target in pairs
            ],
            "transfer": [
                {"source": source, "target": target, **self.transfer(source, target)._asdict()}
                for source, target in pairs
                if source != target and source in self.targets
            ],
            "notes": list(self.notes),
        }


def transfer_matrix(  # noqa: PLR0913 - who, on what, by what, how much, then how
    subjects: Sequence[Subject],
    split: Split,
    attack: str,
    threat: ThreatModel,
    *,
    seed: int,
    batch_size: int,
    progress: Progress | None = None,
) -> TransferMatrix:
    """Make candidates for every subject, without stopping at the first success, and try each on all.

    Args:
        subjects: Forms of one model, or different models of the same classes. One with ``judged=False`` is a source
            only; one without a torch model is a target only where the attack needs gradients.
        split: Images and labels.
        attack: Name with settings, such as ``apgd-ce:steps=50``.
        threat: The budget.
        seed: Same seed, batch size and machine: same result, bit for bit.
        batch_size: Most images in one pass.
        progress: Told about every batch of images.
    """
    started = time.perf_counter()
    method = ATTACKS.build(attack)
    targets = [subject for subject in subjects if subject.judged]
    sources = [s for s in subjects if (s.judged if method.kind == "query" else s.model is not None)]
    _check(subjects, sources, targets, attack)
    counted = {s.name: Counted(s.predict, len(split), batch_size) for s in subjects}
    right = [clean_classes(counted[target.name], split) == split.labels for target in targets]
    rows = np.flatnonzero(np.all(right, axis=0))
    if not len(rows):
        raise DataError(f"{split.name}: {', '.join(t.name for t in targets)} get no image right together")
    run = _Run(method, split, rows, threat, seed, counted)
    robust = {source.name: run.source(source, targets, batch_size, progress) for source in sources}
    blind = [target.name for target in targets if target not in sources]
    return TransferMatrix(
        samples=len(split),
        rows=rows,
        sources=tuple(robust),
        targets=tuple(target.name for target in targets),
        robust=robust,
        queries={target.name: counted[target.name].queries for target in targets},
        forward_passes=run.cost.forward,
        backward_passes=run.cost.backward,
        seconds=time.perf_counter() - started,
        settings={
            "attack": attack,
            "norm": threat.norm,
            "eps": threat.eps,
            "grid": threat.grid,
            "seed": seed,
            "batch_size": batch_size,
        },
        notes=(
            *(f"{name} has no differentiable model: it is a target only" for name in blind),
            *remarks(run.cost, run.replaced, sum(each.unbooked for each in counted.values())),
        ),
    )


def _check(subjects: Sequence[Subject], sources: Sequence[Subject], targets: Sequence[Subject], attack: str) -> None:
    names = [subject.name for subject in subjects]
    if not targets or len(set(names)) < len(names):
        raise OptionError(f"a transfer matrix needs judged subjects with different names, got {names}")
    if not sources:
        raise AttackError(f"{attack} needs gradients and none of {', '.join(names)} has a torch model; use square")


class _Run:
    """One attack on one source after the other."""

    def __init__(
        self, attack: Attack, split: Split, rows: Rows, threat: ThreatModel, seed: int, counted: Mapping[str, Counted]
    ) -> None:
        self._attack, self._split, self._rows, self._threat = attack, split, rows, threat
        self._seed, self._counted = seed, counted
        self.cost, self.replaced = Cost(), 0

    def source(
        self, subject: Subject, targets: Sequence[Subject], batch_size: int, progress: Progress | None
    ) -> dict[str, Flags]:
        """Return for each target ``(n,)`` whether it is right on candidates made for ``subject``."""
        counted, split = self._counted[subject.name], self._split
        crafter = CRAFTERS.load(self._attack.kind)(self._attack, self._threat, self._seed, counted, subject.model)
        robust = {target.name: np.ones(len(self._rows), dtype=np.bool_) for target in targets}
        size = group_size(self._attack, batch_size, split.images[0].nbytes)
        with (progress or Silent()).stage(f"{self._attack.name} on {subject.name}", len(self._rows)) as advance:
            for at in groups(np.arange(len(self._rows)), size):
                group = self._rows[at]
                labels = split.labels[group]
                proposal = crafter.craft(split.images[group], labels, group, push=True)
                self.replaced += proposal.replaced
                for name, flags in robust.items():
                    flags[at] = self._counted[name].classes(proposal.images, group) == labels
                advance(len(at))
        self.cost = Cost(*(a + b for a, b in zip(self.cost, crafter.cost, strict=True)))
        return robust
