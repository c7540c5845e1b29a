"""Clocks and temperatures from sysfs. A reader takes the root of the file system and leaves out what is not there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")
OFFLINE_CELSIUS = -100.0
"""A switched-off zone of a Jetson reads -256 °C."""
GPU_NAMES = frozenset({"gpu", "ga10b", "gv11b", "gp10b", "gm20b"})
"""Device-tree names of the GPU on Jetsons up to Orin; Thor has a clock per part, ``gpu-gpc-0`` for the cores."""
THOR_GPU = "gpu-gpc-"


class Clock(NamedTuple):
    """A clock and the bounds within which the system may move it; ``None`` where sysfs does not say."""

    mhz: float
    low_mhz: float | None = None
    high_mhz: float | None = None
    governor: str = ""

    @property
    def pinned(self) -> bool:
        """Whether it cannot move, as after ``jetson_clocks``."""
        return self.low_mhz is not None and self.low_mhz == self.high_mhz


def read_text(path: Path) -> str:
    """Return a file without the white space around it, or ``""`` where there is none that we may read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n\t")
    except OSError:  # also a sensor that is switched off
        return ""


def read_number(path: Path) -> float | None:
    """Return the number in a file, or ``None`` where there is none."""
    try:
        return float(read_text(path))
    except ValueError:
        return None


def thermal_zones(root: Path = ROOT) -> dict[str, float]:
    """Return °C by the name of the zone; zones that are off are left out, and a second one of a name gets ``#2``."""
    found: dict[str, float] = {}
    for zone in _numbered(root / "sys/class/thermal", "thermal_zone*"):
        milli = read_number(zone / "temp")
        if milli is None or milli / 1000 < OFFLINE_CELSIUS:
            continue
        name = read_text(zone / "type") or zone.name
        same = sum(key.partition("#")[0] == name for key in found)
        found[f"{name}#{same + 1}" if same else name] = milli / 1000
    return found


def cpu_clocks(root: Path = ROOT) -> dict[str, Clock]:
    """Return the clock of each group of cores by its first core; without cpufreq what ``/proc/cpuinfo`` says."""
    folder = root / "sys/devices/system/cpu/cpufreq"
    found = {}
    for policy in _numbered(folder, "policy*"):
        clock = _clock(policy, "scaling_cur_freq", ("scaling_min_freq", "scaling_max_freq"), per_mhz=1e3)
        if clock is not None:
            found[policy.name.replace("policy", "cpu")] = clock._replace(
                governor=read_text(policy / "scaling_governor")
            )
    return found or cpuinfo_clocks(read_text(root / "proc/cpuinfo"))


def cpuinfo_clocks(text: str) -> dict[str, Clock]:
    r"""Read ``cpu MHz`` of ``/proc/cpuinfo``; ARM systems have none.

    Example:
        >>> cpuinfo_clocks("processor : 0\ncpu MHz : 2400.5\n")["cpu0"].mhz
        2400.5
    """
    speeds = re.findall(r"^cpu MHz\s*:\s*(\d+(?:\.\d+)?)\s*$", text, flags=re.MULTILINE)
    return {f"cpu{i}": Clock(float(mhz)) for i, mhz in enumerate(speeds)}


def gpu_clocks(root: Path = ROOT) -> dict[str, Clock]:
    """Return the clocks of a Jetson's GPU; empty on other machines, where :mod:`rctk.measure.nvidia_smi` knows them."""
    found = {}
    for device in _numbered(root / "sys/class/devfreq", "*"):
        if not _is_gpu(device):
            continue
        clock = _clock(device, "cur_freq", ("min_freq", "max_freq"), per_mhz=1e6)
        if clock is not None:
            found[device.name] = clock._replace(governor=read_text(device / "governor"))
    return found


def _is_gpu(device: Path) -> bool:
    tree = read_text(device / "device/of_node/name")
    return tree in GPU_NAMES or device.name.rpartition(".")[2] in GPU_NAMES or device.name.startswith(THOR_GPU)


def _clock(folder: Path, now: str, bounds: tuple[str, str], *, per_mhz: float) -> Clock | None:
    value = read_number(folder / now)
    if value is None:
        return None
    low, high = (read_number(folder / name) for name in bounds)
    return Clock(value / per_mhz, None if low is None else low / per_mhz, None if high is None else high / per_mhz)


def _numbered(folder: Path, pattern: str) -> Iterator[Path]:
    """Yield folders in the order of the number at their end: 2 before 10."""
    try:
        entries = list(folder.glob(pattern))
    except OSError:
        return
    yield from sorted(entries, key=lambda path: (int((re.findall(r"\d+$", path.name) or ["0"])[0]), path.name))
