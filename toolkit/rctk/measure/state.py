"""Clocks, power mode and temperatures around a measurement, and whether they moved."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rctk.measure.nvidia_smi import gpus
from rctk.measure.nvpmodel import power_mode
from rctk.measure.sysfs import ROOT, cpu_clocks, gpu_clocks, thermal_zones

CLOCK_SHARE = 0.05
"""A clock that moves by more than this share is said to have moved."""
WARMER_CELSIUS = 10.0
KEPT = 20
"""At most so many looks during the run are recorded."""


class State(NamedTuple):
    """One look at the machine; ``None`` and empty where it does not tell.

    Attributes:
        cpu_mhz: Of the fastest core: the others may idle.
        gpu_mhz: Of the fastest GPU cluster or card.
        hottest_celsius: Of all thermal zones and GPUs.
        hottest_zone: Its name.
        power_mode: Of a Jetson.
        governors: Of CPU and GPU clocks, each once.
        pinned: Whether no clock can move, as after ``jetson_clocks``; ``None`` without clocks that have bounds.
    """

    cpu_mhz: float | None
    gpu_mhz: float | None
    hottest_celsius: float | None
    hottest_zone: str
    power_mode: str
    governors: tuple[str, ...]
    pinned: bool | None


def look(root: Path = ROOT, *, tools: bool = False) -> State:
    """Look at sysfs, which takes well under a millisecond per clock; ``tools`` asks ``nvidia-smi`` too."""
    cpu, gpu, zones = cpu_clocks(root), gpu_clocks(root), thermal_zones(root)
    cards = gpus() if tools else []
    speeds = [clock.mhz for clock in gpu.values()] + [card.mhz for card in cards if card.mhz is not None]
    heat = zones | {card.name: card.celsius for card in cards if card.celsius is not None}
    hottest = max(heat, key=heat.__getitem__, default="")
    clocks = [*cpu.values(), *gpu.values()]
    bounded = [clock.pinned for clock in clocks if clock.low_mhz is not None]
    mode = power_mode(root)
    return State(
        cpu_mhz=max((clock.mhz for clock in cpu.values()), default=None),
        gpu_mhz=max(speeds, default=None),
        hottest_celsius=heat.get(hottest),
        hottest_zone=hottest,
        power_mode="" if mode is None else str(mode),
        governors=tuple(sorted({clock.governor for clock in clocks if clock.governor})),
        pinned=all(bounded) if bounded else None,
    )


def moved(before: State, during: Sequence[State], after: State) -> list[str]:
    """Say what changed while engines were timed; empty where nothing did.

    Clocks are compared between the looks during the run, for an idle machine before it may rightly be slow; power mode
    and temperature between all.

    Example:
        >>> cool = State(2000.0, None, 50.0, "cpu", "MAXN (0)", (), True)
        >>> moved(cool, [cool, cool._replace(cpu_mhz=1500.0)], cool._replace(hottest_celsius=65.0))
        ['CPU clock 1500 to 2000 MHz', 'cpu from 50 to 65 °C']
    """
    found = [
        f"{name} clock {min(speeds):.0f} to {max(speeds):.0f} MHz"
        for name, key in (("CPU", "cpu_mhz"), ("GPU", "gpu_mhz"))
        if (speeds := [getattr(state, key) for state in during if getattr(state, key) is not None])
        and max(speeds) - min(speeds) > CLOCK_SHARE * max(speeds)
    ]
    modes = list(dict.fromkeys(state.power_mode for state in (before, *during, after)))
    if modes[1:]:
        found.append(f"power mode {' then '.join(mode or 'unknown' for mode in modes)}")
    cool, hot = before.hottest_celsius, after.hottest_celsius
    if cool is not None and hot is not None and hot - cool > WARMER_CELSIUS:
        found.append(f"{after.hottest_zone} from {cool:.0f} to {hot:.0f} °C")
    return found


def state_values(before: State, during: Sequence[State], after: State) -> dict[str, Any]:
    """Return the fields of a record: what was seen, load included, and what moved."""
    step = max(1, -(-len(during) // KEPT))
    return {
        "state_before": before._asdict(),
        "state_during": [state._asdict() for state in during[::step]],
        "state_after": after._asdict(),
        "load_after": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "moved": moved(before, during, after),
    }
