"""What the doctor looks at for measurements: GPU, clocks, heat, power sensors, and what belongs to a Jetson."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rctk.doctor_check import Check, judged
from rctk.machine import PACKAGES, installed, run_text
from rctk.measure.nvidia_smi import gpus
from rctk.measure.nvpmodel import parse_query, power_mode
from rctk.measure.power_sensors import find_probes
from rctk.measure.state import look
from rctk.measure.sysfs import ROOT, cpu_clocks, gpu_clocks, read_text

JETPACKS = {
    "36.3.0": "6.0",
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "36.5.0": "6.2.2",
    "36.5.2": "6.2.3",
    "38.4.0": "7.1",
    "39.2.0": "7.2",
    "39.2.1": "7.2.1",
    "39.2.2": "7.2.2",
}
"""Jetson Linux to JetPack."""
SERIES = {"32": "4.x", "35": "5.x", "36": "6.x", "38": "7.0 or 7.1", "39": "7.2"}
TENSORRT = {"36": "10.3", "38": "10.13", "39": "10.16"}
"""Jetson Linux to the TensorRT of its JetPack."""
TOO_OLD = re.compile(r"\d\.|10\.[0-2](?:\.|$)")
HOT_CELSIUS = 85.0
SLOW_GOVERNORS = frozenset({"powersave", "conservative", "ondemand", "schedutil"})
NO_BOUNDS = "intel_pstate"  # its "powersave" is an ordinary governor that follows the load


def device_checks(facts: Mapping[str, Any], root: Path = ROOT) -> list[Check]:
    """Return the lines about this machine as an instrument."""
    return [cuda(root), clocks(root, jetson=is_jetson(facts)), heat(root), power_sensors(root), *jetson(facts, root)]


def is_jetson(facts: Mapping[str, Any]) -> bool:
    """Whether the machine says that it is a Jetson."""
    return bool(facts["l4t"]) or "Jetson" in facts["board"]


def cuda(root: Path = ROOT) -> Check:
    """Tell the CUDA toolkit and the driver; neither is needed on a machine without a GPU."""
    toolkit = parse_cuda(read_text(root / "usr/local/cuda/version.json"))
    drivers = sorted({card.driver for card in gpus()})
    parts = [f"toolkit {toolkit}"] if toolkit else []
    parts += [f"driver {', '.join(drivers)}"] if drivers else []
    return judged("cuda", ", ".join(parts) or "none (not needed)", "")


def parse_cuda(text: str) -> str:
    """Return the version in ``version.json`` of a CUDA toolkit, else ``""``.

    Example:
        >>> parse_cuda('{"cuda": {"name": "CUDA SDK", "version": "12.6.11"}}')
        '12.6.11'
    """
    try:
        return str(json.loads(text)["cuda"]["version"])
    except (ValueError, KeyError, TypeError):
        return ""


def clocks(root: Path = ROOT, *, jetson: bool = False) -> Check:
    """Tell whether clocks may move during a measurement."""
    found = {**cpu_clocks(root), **gpu_clocks(root)}
    if not found:
        return judged("clocks", "not visible here; a bench cannot tell whether they moved", "")
    fastest = max(found, key=lambda name: found[name].mhz)
    loose = [name for name, clock in found.items() if clock.low_mhz is not None and not clock.pinned]
    governors = sorted({clock.governor for clock in found.values() if clock.governor})
    text = f"{fastest} at {found[fastest].mhz:.0f} MHz" + (f", governor {', '.join(governors)}" if governors else "")
    if not loose:
        bounded = any(clock.pinned for clock in found.values())
        return judged("clocks", f"{text}, {'all pinned' if bounded else 'bounds not visible'}", "")
    step = ""
    if jetson:
        step = "pin them with `sudo jetson_clocks` (after nvpmodel), and restore with `sudo jetson_clocks --restore`"
    elif SLOW_GOVERNORS & set(governors) and NO_BOUNDS not in _driver(root):
        step = "for steady timings `sudo cpupower frequency-set -g performance`"
    return judged("clocks", f"{text}, {len(loose)} of {len(found)} may move", step)


def _driver(root: Path) -> str:
    return read_text(root / "sys/devices/system/cpu/cpufreq/policy0/scaling_driver")


def heat(root: Path = ROOT) -> Check:
    """Warn of a machine that is about to throttle."""
    state = look(root)
    if state.hottest_celsius is None:
        return judged("temperature", "not visible here", "")
    step = "let it cool, or give it a fan: hot clocks fall in mid-run" if state.hottest_celsius >= HOT_CELSIUS else ""
    return judged("temperature", f"{state.hottest_celsius:.0f} °C at {state.hottest_zone}", step)


def power_sensors(root: Path = ROOT) -> Check:
    """Tell which rails ``rctk bench --energy`` would read, RAPL, INA and NVML alike."""
    probes, obstacles = find_probes(root)
    counting = [probe.rail for probe in probes if probe.counts]
    if obstacles:
        name, _, step = obstacles[0].rpartition("; ")
        more = f" and {len(obstacles) - 1} more" if obstacles[1:] else ""
        return judged("power sensors", f"{', '.join(counting) or 'none'}; not {name}{more}", step)
    return judged("power sensors", ", ".join(counting) or "none; `rctk bench --energy` has nothing to read", "")


def jetson(facts: Mapping[str, Any], root: Path = ROOT) -> list[Check]:
    """Tell what a Jetson measurement depends on; nothing on other machines."""
    if not is_jetson(facts):
        return []
    stats = shutil.which("tegrastats") or ""
    no_stats = "power cannot be watched here; run on the host system, or mount it into the container"
    return [
        jetpack(facts),
        mode(root),
        judged("tegrastats", stats or "none", "" if stats else no_stats, "missing"),
        tensorrt(facts["l4t"]),
    ]


def jetpack(facts: Mapping[str, Any]) -> Check:
    """Name JetPack and board; before JetPack 6 the system Python is too old for rctk."""
    release = facts["l4t"]
    series = release.partition(".")[0]
    known = JETPACKS.get(release) or SERIES.get(series, "unknown")
    step = ""
    if series in {"32", "35"}:
        step = "JetPack's own Python is older than 3.10 there, so its TensorRT cannot be imported; use JetPack 6 or 7"
    elif known == "unknown":
        step = "this Jetson Linux is not one that rctk knows; check TensorRT and CUDA yourself"
    found = f"{facts['board'] or 'Jetson'}, JetPack {known} (Jetson Linux {release or 'unknown'})"
    return judged("jetpack", found, step)


def mode(root: Path = ROOT) -> Check:
    """Tell the power mode: from nvpmodel's files, which anybody may read, else from the tool."""
    found = power_mode(root) or parse_query(run_text("nvpmodel", "-q"))
    step = "timings of different power modes cannot be compared; note the mode of `sudo nvpmodel -q` yourself"
    return judged("power mode", str(found) if found else "unknown", "" if found else step)


def tensorrt(release: str) -> Check:
    """Tell whether TensorRT is there and of the generation that this JetPack supports."""
    if importlib.util.find_spec("tensorrt") is None:
        step = (
            "it comes with JetPack's apt packages; make the environment with `python3 -m venv --system-site-packages`"
        )
        return judged("tensorrt", "no tensorrt", step, "missing")
    found, wanted = installed(PACKAGES["tensorrt"]), TENSORRT.get(release.partition(".")[0], "")
    step = ""
    if release.startswith("36.") and re.match(r"(?:1[1-9]|[2-9]\d)\.", found):
        step = f"JetPack 6 runs TensorRT {wanted}; uninstall the pip package and use JetPack's"
    elif TOO_OLD.match(found):
        step = "rctk builds and runs plans with TensorRT 10.3 or newer; install JetPack 6.1 or newer"
    return judged("tensorrt", f"tensorrt {found or 'of unknown version'}", step)
