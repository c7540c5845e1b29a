"""What follows from one suite without a further query: sizes of successes, and how form and float compare."""

from __future__ import annotations

from typing import Any

import numpy as np

from rctk.data.split import Split
from rctk.evaluation.judge import distances
from rctk.evaluation.subjects import eight_bit
from rctk.evaluation.suite import SuiteResult
from rctk.metrics.perturbation import perturbation_of
from rctk.metrics.relative import relative_robustness, transfer_rate


def suite_metrics(result: SuiteResult, split: Split, name: str) -> dict[str, Any]:
    """Return JSON values about subject ``name``.

    ``success`` and sizes are over the images that broke, ``relative_robustness`` compares with the float model where
    that was attacked beside it. ``transfer`` says for candidates made for one form how many that fooled it fooled this
    one too; later attacks only see images that survive, so read it as a lower bound and `rctk transfer` for a table.
    """
    linf, l2 = distances(result.adversarial[name], split.images)
    sizes = perturbation_of(result.clean[name], result.robust[name], linf, l2, result.queries[name])
    values: dict[str, Any] = sizes._asdict()
    parent = next((other for other in ("float", eight_bit("float")) if _same_pixels(other, name, result)), None)
    if parent is not None and parent != name:
        values["relative_robustness"] = relative_robustness(
            result.clean[parent], result.robust[parent], result.clean[name], result.robust[name]
        )._asdict()
    values["transfer"] = _transfer(result, name)
    return values


def _same_pixels(parent: str, name: str, result: SuiteResult) -> bool:
    return parent in result.clean and (parent == eight_bit("float")) == (name == eight_bit(name.partition(" ")[0]))


def _transfer(result: SuiteResult, name: str) -> list[dict[str, Any]]:
    rates = []
    for entry in result.entries:
        source = entry.subject
        if name in entry.robust and source in entry.robust and source != name:
            tried = entry.tried
            broke = np.where(tried, entry.robust[source], True)
            rate = transfer_rate(result.clean[source] & tried, broke, result.clean[name] & tried, entry.robust[name])
            rates.append({"attack": entry.attack, "source": source, **rate._asdict()})
    return rates
