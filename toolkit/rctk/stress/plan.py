"""From words to conditions: which corruptions at which severities, and which other tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from rctk.data.split import Split
from rctk.stress import STRESS_TESTS
from rctk.stress.condition import Condition
from rctk.stress.corrupt import check_severity, corruption_conditions, names
from rctk.stress.published import FOLDERS, find_published
from rctk_kernels.errors import DataError, OptionError

NONE = "none"
Where = Literal["auto", "published", "generated"]


def plan(
    split: Split,
    corruption: Sequence[str],
    severity: Sequence[int],
    tests: Sequence[str],
    *,
    source: Where = "auto",
    seed: int,
) -> list[Condition]:
    """Return the conditions of a run, corruptions first.

    Args:
        split: Whose published arrays are looked for.
        corruption: Words of :func:`rctk.stress.corrupt.names`; ``none`` for none.
        severity: Each 1 to 5.
        tests: Rows of the table of stress tests with settings, such as ``occlusion:fill=noise``.
        source: ``published`` refuses to generate what is not there.
        seed: Of everything random.
    """
    if seed < 0:
        raise OptionError(f"seed must not be negative, got {seed}")
    chosen = names([word for word in corruption if word != NONE])
    published = None if source == "generated" or not chosen else find_published(split)
    missing = [name for name in chosen if published is None or name not in published.names]
    if source == "published" and missing:
        folder = FOLDERS.get(split.name)
        where = f"put the arrays into {folder} below RCTK_DATA" if folder else f"there are none for {split.name}"
        raise DataError(f"no published arrays of {', '.join(missing)}; {where}, or use --source auto")
    conditions = corruption_conditions(chosen, sorted(set(severity)), seed, published)
    for text in tests:
        conditions.extend(STRESS_TESTS.build(text).conditions(seed))
    return conditions


def severities(text: str) -> tuple[int, ...]:
    """Read ``1..5``, ``3`` or ``1,3,5``.

    Example:
        >>> severities("1..3,5")
        (1, 2, 3, 5)
    """
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*(?:\.\.|-)\s*(\d+))?\s*", part)
        if match is None:
            raise OptionError(f"cannot read severities {text!r}; write 1..5, 3 or 1,3,5")
        first, last = int(match[1]), int(match[2] or match[1])
        found |= set(range(first, last + 1))
    for severity in found:
        check_severity(severity)
    if not found:
        raise OptionError(f"{text!r} names no severity; write the lower end first, such as 1..5")
    return tuple(sorted(found))
