"""How long the first answer takes: a new process imports the runtime, loads the model and classifies one batch.

As a program (``python -m rctk.measure.cold_start REQUEST``) this module is that process.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any, NamedTuple

import numpy as np

from rctk.measure.child import SECONDS, answer, ask
from rctk_export.engine import Source
from rctk_export.engines import ENGINES

LATER_CALLS = 10


class ColdStart(NamedTuple):
    """Times of one new process, in milliseconds; the start of Python itself and of NumPy is not in them.

    The file is usually in the page cache of the system, for somebody has just hashed it: a device that was switched on
    a moment ago needs longer to load.

    Attributes:
        import_ms: Until the runtime is imported and the settings are made.
        load_ms: Until the model is loaded.
        first_ms: The first batch.
        later_ms: Median of the ten batches after it.
    """

    import_ms: float
    load_ms: float
    first_ms: float
    later_ms: float

    @property
    def total_ms(self) -> float:
        """From nothing to the first answer."""
        return self.import_ms + self.load_ms + self.first_ms


def cold_starts(
    engine: str, source: Source, *, batch: int, processes: int, timeout_s: float = SECONDS
) -> list[ColdStart]:
    """Start an engine in ``processes`` new processes, one after another; see :func:`rctk.measure.child.ask`."""
    module = "rctk.measure.cold_start"
    return [ColdStart(**ask(module, engine, source, batch=batch, timeout_s=timeout_s)) for _ in range(processes)]


def cold_values(starts: list[ColdStart]) -> dict[str, Any]:
    """Return the fields of a record: the medians over processes, and each process's total.

    Example:
        >>> cold_values([ColdStart(1.0, 2.0, 3.0, 0.5)])["cold_total_ms"]
        6.0
    """
    parts = {f"cold_{name}": statistics.median(getattr(s, name) for s in starts) for name in ColdStart._fields}
    totals = [start.total_ms for start in starts]
    return {**parts, "cold_total_ms": statistics.median(totals), "cold_totals_ms": totals}


def start_here(engine: str, source: Source, batch: int) -> ColdStart:
    """Be the first to use an engine in this process; meaningful once per process."""
    images = np.random.default_rng(0).random((batch, *source.input.shape), dtype=np.float32)
    ticks = [time.perf_counter_ns()]
    settings = ENGINES.build(engine)
    ticks.append(time.perf_counter_ns())
    with settings.open(source) as opened:
        ticks.append(time.perf_counter_ns())
        for _ in range(1 + LATER_CALLS):
            opened.predict(images)
            ticks.append(time.perf_counter_ns())
    import_ms, load_ms, first_ms, *later = (ns / 1e6 for ns in np.diff(ticks).tolist())
    return ColdStart(import_ms, load_ms, first_ms, statistics.median(later))


def _measured(engine: str, source: Source, batch: int) -> dict[str, Any]:
    return start_here(engine, source, batch)._asdict()


if __name__ == "__main__":
    answer(_measured, sys.argv[1])
