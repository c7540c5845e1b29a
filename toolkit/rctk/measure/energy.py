"""Energy of an engine: power sensors are sampled while it is timed, and its own turns are integrated."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt

from rctk.measure.power_sensors import Probe

INTERVAL_S = 0.05
"""Twenty samples a second; an INA3221 averages over about as long."""
LEAST_WINDOW_S = 10.0
"""A shorter window is called too short to be trusted."""
LEAST_SAMPLES = 20
Windows = Sequence[tuple[int, int]]
"""Start and end of each turn, in nanoseconds of the clock that timed the calls."""


class Curve(NamedTuple):
    """Energy since the first sample, straight between samples."""

    times_ns: npt.NDArray[np.float64]
    joules: npt.NDArray[np.float64]

    def over(self, windows: Windows) -> float:
        """Return the joules inside ``windows``."""
        ends = np.asarray(windows, dtype=np.float64).reshape(-1, 2)
        return float(np.diff(np.interp(ends, self.times_ns, self.joules), axis=1).sum())

    def covers(self, windows: Windows) -> bool:
        """Whether there are samples on both sides of every window."""
        if len(self.times_ns) < 2:
            return False
        return all(self.times_ns[0] <= start and end <= self.times_ns[-1] for start, end in windows)

    def samples(self, windows: Windows) -> int:
        """Count the samples inside ``windows``."""
        return sum(int(((self.times_ns >= start) & (self.times_ns <= end)).sum()) for start, end in windows)


def curve(times_ns: Sequence[int], values: Sequence[float], probe_kind: str, wraps_at_j: float | None = None) -> Curve:
    """Integrate samples: watts by trapezoids, counters by their differences.

    Args:
        times_ns: When each sample was taken.
        values: Watts, or joules of a counter.
        probe_kind: ``power`` or ``energy``.
        wraps_at_j: Where the counter starts again; a step back is a wrap, once per sample at most.

    Example:
        >>> curve([0, 10**9, 2 * 10**9], [3.0, 5.0, 5.0], "power").joules.tolist()
        [0.0, 4.0, 9.0]
        >>> curve([0, 1, 2], [8.0, 9.5, 1.0], "energy", wraps_at_j=10.0).joules.tolist()
        [0.0, 1.5, 3.0]
    """
    times, levels = np.asarray(times_ns, dtype=np.float64), np.asarray(values, dtype=np.float64)
    steps = np.diff(levels)
    if probe_kind == "power":
        steps = (levels[1:] + levels[:-1]) / 2 * np.diff(times) / 1e9
    else:
        steps = np.where(steps < 0, steps + (wraps_at_j or 0.0), steps)
    return Curve(times, np.concatenate([[0.0], np.cumsum(steps)]) if len(levels) else levels)


@final
class Sampler:
    """Reads probes on a thread of its own until its block ends. A probe that fails is dropped; the rest go on."""

    def __init__(
        self,
        probes: Sequence[Probe],
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self.probes = tuple(probes)
        self.faults: dict[str, str] = {}
        self._clock, self._interval = clock_ns, interval_s
        self._rows: dict[str, list[tuple[int, float]]] = {probe.rail: [] for probe in probes}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="power sampler", daemon=True)

    def __enter__(self) -> Sampler:
        self.sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.sample()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self.sample()

    def sample(self) -> None:
        """Read every probe that still answers."""
        for probe in self.probes:
            if probe.rail not in self.faults:
                self._read(probe)

    def _read(self, probe: Probe) -> None:
        try:
            value = probe.read()
        except OSError as error:
            self.faults[probe.rail] = f"{probe.rail} vanished in mid-run: {error.strerror or error}"
        else:
            self._rows[probe.rail].append((self._clock(), value))

    def curves(self) -> dict[str, Curve]:
        """Return what each rail has consumed so far."""
        return {
            probe.rail: curve(
                [at for at, _ in self._rows[probe.rail]],
                [value for _, value in self._rows[probe.rail]],
                probe.kind,
                probe.wraps_at_j,
            )
            for probe in self.probes
        }


def energy_values(sampler: Sampler, idle: tuple[int, int], windows: Windows, images: int) -> dict[str, Any]:
    """Return the energy fields of a record for one engine.

    Args:
        sampler: After its block.
        idle: A window before any engine was loaded.
        windows: The turns of the engine, those that the latency is from.
        images: Classified inside the windows.

    Returns:
        ``energy_rails``: per rail ``mean_w``, ``idle_w`` and ``counts``; ``energy_window_s``, ``energy_samples`` (of
        the rail with the fewest); ``mean_w``, ``idle_w`` of the total; ``image_j`` with idle subtracted and
        ``image_with_idle_j`` without; ``energy_note``, one line, where the figures are missing or doubtful. Totals are
        ``None`` where a rail that counts has vanished.
    """
    seconds = sum(end - start for start, end in windows) / 1e9
    curves = {rail: found for rail, found in sampler.curves().items() if found.covers([idle, *windows])}
    counting = [probe.rail for probe in sampler.probes if probe.counts]
    counts = {probe.rail: probe.counts for probe in sampler.probes}
    rails = {
        rail: {
            "mean_w": found.over(windows) / seconds,
            "idle_w": found.over([idle]) / (idle[1] - idle[0]) * 1e9,
            "counts": counts[rail],
        }
        for rail, found in curves.items()
    }
    whole = bool(counting) and all(rail in rails for rail in counting)
    mean, rest = (sum(rails[rail][key] for rail in counting) if whole else None for key in ("mean_w", "idle_w"))
    samples = min((curves[rail].samples(windows) for rail in rails), default=0)
    return {
        "energy_rails": rails,
        "energy_total_of": counting,
        "energy_window_s": seconds,
        "energy_samples": samples,
        "mean_w": mean,
        "idle_w": rest,
        "image_j": None if mean is None or rest is None else (mean - rest) * seconds / images,
        "image_with_idle_j": None if mean is None else mean * seconds / images,
        "energy_note": _note(sampler.faults, seconds, samples, whole=whole),
    }


def _note(faults: Mapping[str, str], seconds: float, samples: int, *, whole: bool) -> str:
    if faults:
        return "; ".join(faults.values())
    if not whole:
        return "no sample on both sides of every turn; the sensor is too slow for this run"
    if seconds < LEAST_WINDOW_S or samples < LEAST_SAMPLES:
        return f"{seconds:.1f} s with {samples} samples; at least {LEAST_WINDOW_S:g} s are wanted"
    return ""
