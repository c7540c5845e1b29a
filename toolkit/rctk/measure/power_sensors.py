"""Power rails in sysfs: INA3221 and INA238 on Jetsons, RAPL on x86, and NVML for NVIDIA cards.

A *probe* reads one rail. The sensors of a module or carrier board are not power at the wall.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rctk.measure.sysfs import ROOT, read_number, read_text

INPUTS = ("VIN", "VDD_IN", "POM_5V_IN", "5V_IN")
"""Rails at the input of a module: one of them replaces the sum of the rest, which it feeds."""
SHUNT_SUM = 7
"""Channel 7 of an INA3221 is the sum of shunt voltages and no rail."""
I2C = "sys/bus/i2c/devices"
RAPL = "sys/class/powercap"
TOP_LEVEL = re.compile(r"package-\d+|dram")
"""RAPL zones that add up: ``core`` and ``uncore`` are parts of the package, ``psys`` holds them all."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One rail.

    Attributes:
        rail: Its name on the board, with the kind of sensor in front.
        kind: What :attr:`read` gives: watts now, or joules so far.
        read: Reads the sensor; OSError where it has gone.
        wraps_at_j: A counter of joules starts again from 0 there.
        counts: Whether the rail is part of the total.
    """

    rail: str
    kind: Literal["power", "energy"]
    read: Callable[[], float]
    wraps_at_j: float | None = None
    counts: bool = True


class Found(NamedTuple):
    """Probes that can be read, and one line for each sensor that cannot."""

    probes: list[Probe]
    obstacles: list[str]


def find_probes(root: Path = ROOT, *, nvml: bool = True) -> Found:
    """Find every power sensor of this machine; each is read once to see whether it may be."""
    cards, reason = nvml_probes() if nvml else ([], "")
    board = with_total(list(ina_probes(root)))
    if board:
        cards = [replace(card, counts=False) for card in cards]  # the board's rails feed it
    probes = [*board, *rapl_probes(root), *cards]
    obstacles = {probe.rail: _refusal(probe) for probe in probes}
    refused = [text for text in obstacles.values() if text]
    return Found([probe for probe in probes if not obstacles[probe.rail]], [*refused, *([reason] if reason else [])])


def _refusal(probe: Probe) -> str:
    try:
        probe.read()
    except OSError as error:
        return obstacle(probe.rail, error)
    return ""


def obstacle(rail: str, error: OSError) -> str:
    """Say in one line why a rail cannot be read and what to do.

    Example:
        >>> obstacle("rapl package-0", PermissionError(13, "Permission denied"))
        'rapl package-0: Permission denied; run as root, or `sudo chmod -R a+r /sys/devices/virtual/powercap`'
    """
    step = "see `rctk doctor`"
    if isinstance(error, PermissionError):
        rapl = rail.startswith("rapl")
        step = "run as root" + (", or `sudo chmod -R a+r /sys/devices/virtual/powercap`" if rapl else "")
    return f"{rail}: {error.strerror or error}; {step}"


def with_total(probes: list[Probe]) -> list[Probe]:
    """Count the rail at the module's input alone where there is one, else all."""
    whole = next((p for name in INPUTS for p in probes if p.rail.partition(" ")[2] == name), None)
    return probes if whole is None else [replace(probe, counts=probe is whole) for probe in probes]


def ina_probes(root: Path = ROOT) -> Iterator[Probe]:
    """Yield the rails of INA3221 and INA238 chips on a Jetson, by hwmon (JetPack 5 and later) or iio (JetPack 4)."""
    for device in sorted((root / I2C).glob("*")):
        chip = read_text(device / "name").lower()
        if "ina3221" in chip:
            for folder in sorted(device.glob("hwmon/hwmon*")):
                yield from _ina3221(folder)
            for folder in sorted(device.glob("iio:device*")):
                yield from _iio(folder)
        elif "ina238" in chip:
            for folder in sorted(device.glob("hwmon/hwmon*")):
                yield _ina238(folder)


def _ina3221(folder: Path) -> Iterator[Probe]:
    for label in sorted(folder.glob("in*_label")):
        channel, name = int(re.sub(r"\D", "", label.name) or SHUNT_SUM), read_text(label)
        current = folder / f"curr{channel}_input"
        if channel >= SHUNT_SUM or not _connected(name) or not current.exists():
            continue
        volts = folder / f"in{channel}_input"
        yield Probe(rail=f"ina3221 {name}", kind="power", read=_product(volts, current))


def _ina238(folder: Path) -> Probe:
    return Probe(rail="ina238 VIN", kind="power", read=_scaled(folder / "power1_input", 1e-6))


def _iio(folder: Path) -> Iterator[Probe]:
    for label in sorted(folder.glob("rail_name_*")):
        power, name = folder / f"in_power{label.name.rpartition('_')[2]}_input", read_text(label)
        if _connected(name) and power.exists():
            yield Probe(rail=f"ina3221 {name}", kind="power", read=_scaled(power, 1e-3))


def _connected(label: str) -> bool:
    return bool(label) and "NC" not in label.split("_")


def rapl_probes(root: Path = ROOT) -> Iterator[Probe]:
    """Yield the energy counters of an x86 processor; AMD's are below the same ``intel-rapl`` folders."""
    for zone in sorted((root / RAPL).glob("intel-rapl:*")):
        name = read_text(zone / "name")
        if name:
            wrap = read_number(zone / "max_energy_range_uj")
            package = zone.name.split(":")[1] if zone.name.count(":") == 2 else ""  # a part names its package
            yield Probe(
                rail=f"rapl {name}{f'-{package}' if package else ''}",
                kind="energy",
                read=_scaled(zone / "energy_uj", 1e-6),
                wraps_at_j=None if wrap is None else wrap * 1e-6,
                counts=TOP_LEVEL.fullmatch(name) is not None,
            )


def nvml_probes() -> tuple[list[Probe], str]:
    """Return a probe per NVIDIA card, or one line that says why there is none; needs ``nvidia-ml-py``."""
    try:
        pynvml: Any = importlib.import_module("pynvml")  # optional
    except ImportError:
        return [], ""
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        return [], f"nvml: {error}; see `nvidia-smi`"
    return [_card(pynvml, handle, i) for i, handle in enumerate(handles)], ""


def _card(nvml: Any, handle: Any, index: int) -> Probe:
    """Read the counter of millijoules where the card has one, else the power, which is an average over a while."""

    def ask(name: str) -> Callable[[], float]:
        def read() -> float:
            try:
                return float(getattr(nvml, name)(handle)) / 1000
            except nvml.NVMLError as error:
                raise OSError(str(error)) from error

        return read

    counter = ask("nvmlDeviceGetTotalEnergyConsumption")
    try:
        counter()
    except OSError:
        return Probe(rail=f"nvml gpu{index}", kind="power", read=ask("nvmlDeviceGetPowerUsage"))
    return Probe(rail=f"nvml gpu{index}", kind="energy", read=counter)


def _value(path: Path) -> float:
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    try:
        return float(text)
    except ValueError as error:
        raise OSError(f"{path.name} holds {text!r:.40} and no number") from error


def _scaled(path: Path, factor: float) -> Callable[[], float]:
    return lambda: _value(path) * factor


def _product(millivolts: Path, milliamperes: Path) -> Callable[[], float]:
    return lambda: _value(millivolts) * _value(milliamperes) * 1e-6
