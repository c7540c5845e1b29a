"""Mean performance and mean corruption error over types and severities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from rctk_kernels.errors import OptionError

Cells = Mapping[str, Sequence[float]]
"""Type of corruption to the accuracies (or errors) at its severities; shares."""


def mean_performance(accuracy: Cells) -> float:
    """Return mPC: the plain mean of the accuracies over severities and then over types.

    Reference:
        Michaelis et al., "Benchmarking Robustness in Object Detection: Autonomous Driving when Winter is Coming", 2019.
        https://arxiv.org/abs/1907.07484

    Example:
        >>> mean_performance({"fog": [0.9, 0.7], "snow": [0.6, 0.4]})
        0.65
    """
    _check(accuracy)
    return float(np.mean([np.mean(values) for values in accuracy.values()]))


def mean_corruption_error(accuracy: Cells, baseline: Cells) -> float:
    """Return mCE as a share: per type, errors summed over severities over those of a named baseline; then the mean.

    1 means as good as the baseline, below is better. The number means nothing without the baseline's name.

    Reference:
        Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
        ICLR 2019. https://arxiv.org/abs/1903.12261

    Example:
        >>> engine, dense = {"fog": [0.9, 0.7], "snow": [0.6, 0.4]}, {"fog": [0.8, 0.6], "snow": [0.6, 0.4]}
        >>> round(mean_corruption_error(engine, dense), 4)
        0.8333
    """
    return _mean_ratio(_errors(accuracy), _errors(baseline), accuracy, baseline)


def relative_corruption_error(accuracy: Cells, clean: float, baseline: Cells, baseline_clean: float) -> float:
    """Return relative mCE as a share: as :func:`mean_corruption_error`, of the errors beyond the clean error."""
    own = {name: errors - (1 - clean) for name, errors in _errors(accuracy).items()}
    other = {name: errors - (1 - baseline_clean) for name, errors in _errors(baseline).items()}
    return _mean_ratio(own, other, accuracy, baseline)


def _errors(accuracy: Cells) -> dict[str, npt.NDArray[np.float64]]:
    return {name: 1 - np.asarray(values, dtype=np.float64) for name, values in accuracy.items()}


def _mean_ratio(
    errors: Mapping[str, npt.NDArray[np.float64]],
    baseline: Mapping[str, npt.NDArray[np.float64]],
    accuracy: Cells,
    baseline_accuracy: Cells,
) -> float:
    _check(accuracy)
    if {name: len(v) for name, v in accuracy.items()} != {name: len(v) for name, v in baseline_accuracy.items()}:
        raise OptionError("mCE compares the same types at the same severities; run model and baseline together")
    sums = {name: float(values.sum()) for name, values in baseline.items()}
    perfect = [name for name, total in sums.items() if total <= 0]
    if perfect:
        raise OptionError(
            f"the baseline loses nothing on {', '.join(perfect)}, so mCE has no value; use a harder severity, more "
            "images, or mPC"
        )
    return float(np.mean([errors[name].sum() / total for name, total in sums.items()]))


def _check(cells: Cells) -> None:
    if not cells or any(not len(values) for values in cells.values()):
        raise OptionError("a mean over corruptions needs at least one type and one severity")
