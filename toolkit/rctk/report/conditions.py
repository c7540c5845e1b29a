"""Under which conditions a bench was made: scenario, pause, power mode; times under different ones do not compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rctk.report.words import MISSING, is_number, text

USUAL = "single-stream"


def scenario(part: Mapping[str, Any]) -> str:
    """Return how queries arrived.

    Example:
        >>> scenario({"scenario": "multi-stream", "streams": 4}), scenario({"scenario": "single-stream", "streams": 1})
        ('multi-stream x 4', 'single-stream')
    """
    streams: Any = part.get("streams")
    many = f" x {streams}" if is_number(streams) and streams > 1 else ""
    return f"{text(part.get('scenario'))}{many}"


def pause(value: Any) -> str:
    """Return the milliseconds of rest between calls, a dash where there was none.

    Example:
        >>> pause(33.0), pause(0)
        ('33', '-')
    """
    return f"{value:g}" if is_number(value) and value > 0 else MISSING


def power_mode(part: Mapping[str, Any]) -> str:
    """Return the power mode that a Jetson was in, both where it changed during the run.

    Example:
        >>> power_mode({"state_before": {"power_mode": "MAXN (0)"}, "state_after": {"power_mode": "15W (2)"}})
        'MAXN (0), then 15W (2)'
    """
    states = [part.get(name) for name in ("state_before", "state_after")]
    modes = [str(state.get("power_mode") or "") for state in states if isinstance(state, Mapping)]
    return text(", then ".join(dict.fromkeys(mode for mode in modes if mode)))


def unusual(part: Mapping[str, Any]) -> str:
    """Return what makes these times other than those of single batches one after the other; empty where nothing does.

    Example:
        >>> unusual({"scenario": "offline", "streams": 2, "gap_ms": 5.0}), unusual({"scenario": "single-stream"})
        ('offline x 2, pause 5 ms', '')
    """
    parts = [scenario(part)] if part.get("scenario") not in {None, "", USUAL} else []
    rest = pause(part.get("gap_ms"))
    return ", ".join([*parts, *([f"pause {rest} ms"] if rest != MISSING else [])])
