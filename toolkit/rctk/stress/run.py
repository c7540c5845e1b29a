"""Runs stress tests on several forms of one model, on the same images; the models themselves are asked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rctk.data.split import Split
from rctk.evaluation.counting import Counted, clean_classes
from rctk.evaluation.judge import Flags
from rctk.evaluation.subjects import Subject
from rctk.progress import Progress, Silent
from rctk.stress import CORRUPTIONS
from rctk.stress.condition import Condition, Origin
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import DataError, OptionError


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one condition did.

    Attributes:
        test: Such as ``fog``.
        group: Such as ``weather``.
        level: Such as ``3``.
        variants: Images made of each image.
        origin: ``published`` or ``generated``.
        right: For each subject ``(variants, N)``; the variant is classified correctly.
        clean: For each subject ``(N,)``; the image as it is is.
    """

    test: str
    group: str
    level: str
    variants: int
    origin: Origin
    right: Mapping[str, Flags]
    clean: Mapping[str, Flags]

    def survived(self, subject: str) -> Flags:
        """Return ``(N,)``: right on all variants; where there are several, on the image as it is, too."""
        every = np.asarray(self.right[subject].all(axis=0))
        return every if self.variants == 1 else every & self.clean[subject]

    def accuracy(self, subject: str) -> float:
        """Return the share of images that survived: the worst case where there are several variants."""
        return float(self.survived(subject).mean())

    def mean_accuracy(self, subject: str) -> float:
        """Return the mean accuracy over the variants."""
        return float(self.right[subject].mean())


@dataclass(frozen=True, kw_only=True)
class StressResult:
    """What all conditions did to all subjects.

    Attributes:
        clean: For each subject ``(N,)``; right on the image as it is.
        cells: In the order of the conditions.
        seconds: Wall time.
        notes: What a reader should know.
    """

    clean: Mapping[str, Flags]
    cells: tuple[Cell, ...]
    seconds: float
    notes: tuple[str, ...]

    @property
    def samples(self) -> int:
        """Number of images."""
        return len(next(iter(self.clean.values())))

    def by_test(self) -> dict[str, list[Cell]]:
        """Return the cells of each test, from mild to hard."""
        tests: dict[str, list[Cell]] = {}
        for cell in self.cells:
            tests.setdefault(cell.test, []).append(cell)
        return tests


def stress(
    subjects: Sequence[Subject],
    split: Split,
    conditions: Sequence[Condition],
    *,
    batch_size: int,
    progress: Progress | None = None,
) -> StressResult:
    """Classify every variant of every image under every condition with all subjects.

    Args:
        subjects: Forms of one model; only their ``predict`` is used.
        split: Images and labels.
        conditions: From :func:`rctk.stress.corrupt.corruption_conditions` and from stress tests.
        batch_size: Most images in one pass.
        progress: Told about every condition.
    """
    names = [subject.name for subject in subjects]
    if not names or len(set(names)) < len(names):
        raise OptionError(f"stress needs one or more subjects with different names, got {names}")
    if not conditions:
        raise OptionError("no condition was chosen; name a --corruption or a --test")
    started = time.perf_counter()
    models = {subject.name: Counted(subject.predict, len(split), batch_size) for subject in subjects}
    clean = {name: clean_classes(model, split) == split.labels for name, model in models.items()}
    cells = []
    with (progress or Silent()).stage("stress", sum(condition.variants for condition in conditions)) as advance:
        for condition in conditions:
            right: dict[str, list[Flags]] = {name: [] for name in names}
            for variant in range(condition.variants):
                for name, flags in _classify(models, split, condition, variant, batch_size).items():
                    right[name].append(flags)
                advance(1)
            cells.append(
                Cell(
                    test=condition.test,
                    group=condition.group,
                    level=condition.level,
                    variants=condition.variants,
                    origin=condition.origin,
                    right={name: np.array(flags) for name, flags in right.items()},
                    clean=clean,
                )
            )
    return StressResult(clean=clean, cells=tuple(cells), seconds=time.perf_counter() - started, notes=_notes(cells))


def _classify(
    models: Mapping[str, Counted], split: Split, condition: Condition, variant: int, batch_size: int
) -> dict[str, Flags]:
    parts: dict[str, list[Flags]] = {name: [] for name in models}
    for start in range(0, len(split), batch_size):
        rows = np.arange(start, min(start + batch_size, len(split)))
        images = condition.make(variant, split.images[rows], split.indices[rows])
        _check(images, split.images[rows], condition)
        for name, model in models.items():
            parts[name].append(model.classes(images, rows) == split.labels[rows])
    return {name: np.concatenate(flags) for name, flags in parts.items()}


def _check(images: FloatNCHW, originals: FloatNCHW, condition: Condition) -> None:
    fits = images.shape == originals.shape and images.dtype == np.float32
    if not (fits and images.min() >= 0 and images.max() <= 1):  # false for NaN as well
        span = f" from {images.min()} to {images.max()}" if images.size else ""
        raise DataError(
            f"{condition.test} {condition.level} made {images.dtype} {images.shape}{span}; expected float32 "
            f"{originals.shape} in [0, 1]; generate it again, or leave it out"
        )


def _notes(cells: Sequence[Cell]) -> tuple[str, ...]:
    generated = {cell.test for cell in cells if cell.test in CORRUPTIONS and cell.origin == "generated"}
    notes = []
    if generated:
        notes.append(
            f"corruptions generated here, not read from published arrays ({len(generated)} types): compare models with "
            "each other, not with published numbers"
        )
    if "frost" in generated:
        notes.append("frost uses a procedural texture in place of the published photographs")
    return tuple(notes)
