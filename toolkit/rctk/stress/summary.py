"""What a stress run says: accuracy per test, mPC, mCE against a named baseline, and paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rctk.metrics.corruption_error import mean_corruption_error, mean_performance
from rctk.statistics import Paired, paired_difference, wilson
from rctk.statistics.bootstrap import Estimate, bootstrap, bootstrap_difference
from rctk.statistics.holm import holm
from rctk.stress.corrupt import GROUPS
from rctk.stress.run import Cell, StressResult
from rctk_export.registry import unknown

HELD_OUT = "held out"


class Summary(NamedTuple):
    """One test over its levels; shares.

    Attributes:
        test: Such as ``fog``.
        group: Such as ``weather``.
        origin: ``published`` or ``generated``.
        accuracy: Accuracy at each level, from mild to hard; worst cases where a level has several variants.
        mean: Their mean, with a bootstrap interval over images.
        difference: Mean of the subject minus that of the baseline, paired by image; None for the baseline itself.
    """

    test: str
    group: str
    origin: str
    accuracy: tuple[float, ...]
    mean: Estimate
    difference: Estimate | None


class Overall(NamedTuple):
    """All benchmark corruptions together, held-out types apart; None where none of them was run.

    Attributes:
        mpc: Mean accuracy over types and severities, with a bootstrap interval over images.
        difference: mPC minus that of the baseline, paired by image; None for the baseline itself.
        mce: Mean corruption error against the baseline, a share; None for the baseline itself, and where that makes no
            error at all on some type.
        held_out: Mean accuracy over the held-out types.
    """

    mpc: Estimate | None
    difference: Estimate | None
    mce: float | None
    held_out: float | None


def summarise_tests(result: StressResult, subject: str, baseline: str, *, seed: int) -> list[Summary]:
    """Return one row per test; intervals are 95 %, of 2000 resamples of the images."""
    _check(result, subject, baseline)
    rows = []
    for test, cells in result.by_test().items():
        own, other = _per_image(cells, subject), _per_image(cells, baseline)
        difference = None if subject == baseline else bootstrap_difference(other, own, seed=seed)
        accuracy = tuple(cell.accuracy(subject) for cell in cells)
        estimate = bootstrap(own, seed=seed)
        rows.append(Summary(test, cells[0].group, cells[0].origin, accuracy, estimate, difference))
    return rows


def summarise(result: StressResult, subject: str, baseline: str, *, seed: int) -> Overall:
    """Return mPC and mCE over the benchmark's types that were run."""
    _check(result, subject, baseline)
    tests = result.by_test()
    main = {test: cells for test, cells in tests.items() if cells[0].group in GROUPS[:-1]}
    held = {test: cells for test, cells in tests.items() if cells[0].group == HELD_OUT}
    held_out = mean_performance(_table(held, subject)) if held else None
    if not main:
        return Overall(None, None, None, held_out)
    own, other = (np.mean([_per_image(cells, name) for cells in main.values()], axis=0) for name in (subject, baseline))
    base = _table(main, baseline)
    perfect = any(min(values) >= 1 for values in base.values())
    return Overall(
        mpc=bootstrap(own, seed=seed),
        difference=None if subject == baseline else bootstrap_difference(other, own, seed=seed),
        mce=None if perfect or subject == baseline else mean_corruption_error(_table(main, subject), base),
        held_out=held_out,
    )


class CellDifference(NamedTuple):
    """One condition: subject against baseline on the same images, and McNemar's p after Holm over all conditions."""

    cell: Cell
    paired: Paired
    adjusted_p: float


def cell_differences(result: StressResult, subject: str, baseline: str) -> list[CellDifference]:
    """Compare who survives each condition; Tango's interval in ``paired`` is not corrected, ``adjusted_p`` is."""
    _check(result, subject, baseline)
    pairs = [paired_difference(cell.survived(baseline), cell.survived(subject)) for cell in result.cells]
    adjusted = holm([pair.p_value for pair in pairs])
    return [CellDifference(*each) for each in zip(result.cells, pairs, adjusted, strict=True)]


def record_values(result: StressResult, subject: str, baseline: str, *, seed: int) -> dict[str, Any]:
    """Return the values of a record about one subject; shares in [0, 1]."""
    overall, clean = summarise(result, subject, baseline, seed=seed), int(result.clean[subject].sum())
    low, high = wilson(clean, result.samples)
    values: dict[str, Any] = {
        "samples": result.samples,
        "clean_accuracy": clean / result.samples,
        "clean_low": low,
        "clean_high": high,
        **_estimate("mpc", overall.mpc),
        "mce": overall.mce,
        "mce_baseline": None if subject == baseline else baseline,
        "held_out_accuracy": overall.held_out,
        "cells": [_cell(cell, subject) for cell in result.cells],
        "notes": list(result.notes),
        "seconds": result.seconds,
    }
    if subject != baseline:
        values |= _estimate("mpc_difference", overall.difference)
        values["paired"] = [
            {
                "test": each.cell.test,
                "level": each.cell.level,
                **each.paired._asdict(),
                "adjusted_p": each.adjusted_p,
            }
            for each in cell_differences(result, subject, baseline)
        ]
    return values


def _estimate(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    value, low, high = estimate or (None, None, None)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _cell(cell: Cell, subject: str) -> dict[str, Any]:
    survived = int(cell.survived(subject).sum())
    samples = len(cell.survived(subject))
    low, high = wilson(survived, samples)
    return {
        "test": cell.test,
        "group": cell.group,
        "level": cell.level,
        "origin": cell.origin,
        "variants": cell.variants,
        "accuracy": survived / samples,
        "low": low,
        "high": high,
        "mean_accuracy": cell.mean_accuracy(subject),
    }


def _per_image(cells: list[Cell], subject: str) -> npt.NDArray[np.float64]:
    """Return the share of levels that each image survives, ``(N,)``."""
    return np.asarray(np.mean([cell.survived(subject) for cell in cells], axis=0))


def _table(tests: dict[str, list[Cell]], subject: str) -> dict[str, list[float]]:
    return {test: [cell.accuracy(subject) for cell in cells] for test, cells in tests.items()}


def _check(result: StressResult, *subjects: str) -> None:
    for subject in subjects:
        if subject not in result.clean:
            raise unknown("subject", subject, list(result.clean))


def table_rows(result: StressResult, subjects: Sequence[str], *, seed: int) -> list[tuple[str, ...]]:
    """Return one row per test: origin, accuracies and means of all subjects, differences to the first."""
    found = [summarise_tests(result, name, subjects[0], seed=seed) for name in subjects]
    rows = []
    for same in zip(*found, strict=True):
        levels = [" ".join(f"{100 * value:.1f}" for value in one.accuracy) for one in same]
        means = [f"{one.mean.value:.1%}" for one in same]
        rows.append((same[0].test, same[0].origin, *levels, *means, *(_points(one.difference) for one in same[1:])))
    return rows


def overall_lines(result: StressResult, subjects: Sequence[str], *, seed: int) -> list[str]:
    """Return one line per subject with mPC and mCE, then how many conditions differ beyond chance."""
    lines = []
    for name in subjects:
        overall = summarise(result, name, subjects[0], seed=seed)
        parts = []
        if overall.mpc is not None:
            value, low, high = overall.mpc
            parts.append(f"mPC {value:.1%} ({low:.1%} to {high:.1%})")
        if overall.difference is not None:
            parts.append(f"{_points(overall.difference)} points against {subjects[0]}")
        if overall.mce is not None:
            parts.append(f"mCE {overall.mce:.1%} of {subjects[0]}")
        if overall.held_out is not None:
            parts.append(f"held-out types {overall.held_out:.1%}")
        if parts:
            lines.append(f"{name}: {', '.join(parts)}")
    for name in subjects[1:]:
        each = cell_differences(result, name, subjects[0])
        worse = sum(one.adjusted_p < 0.05 and one.paired.difference < 0 for one in each)
        better = sum(one.adjusted_p < 0.05 and one.paired.difference > 0 for one in each)
        lines.append(
            f"{name} against {subjects[0]}: worse under {worse} and better under {better} of {len(each)} conditions "
            "(McNemar, Holm-corrected to 5 %)"
        )
    return lines


def _points(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    value, low, high = (f"{round(100 * share, 1) + 0.0:+.1f}" for share in estimate)  # + 0.0 turns -0.0 into 0.0
    return f"{value} ({low} to {high})"
