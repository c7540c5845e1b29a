"""Lines of ``tegrastats``, whose text changes with every JetPack: each token is looked for by itself."""

from __future__ import annotations

import re
from typing import NamedTuple

from rctk.measure.sysfs import OFFLINE_CELSIUS

CORE = re.compile(r"(\d+)%(?:@(\d+))?$")
TEMPERATURE = re.compile(r"(?:^|\s)([A-Za-z][\w.-]*)@(-?\d+(?:\.\d+)?)C(?=[\s/]|$)")
POWER = re.compile(r"(?:^|\s)([A-Z][A-Z0-9_]*) (\d+)(?:mW(?:/\d+mW)*|(?:/\d+)+)(?=\s|$)")
"""``VDD_IN 5139mW/5139mW/5139mW``; JetPack 4 writes no unit, ``VDD_IN 2532/2532``."""
ENGINE = r"(?:^|\s){name} (?:(\d+)%)?(?:@(\d+|\[[\d,]*\]))?(?=\s|$)"


class Unit(NamedTuple):
    """How busy a unit is, a share in [0, 1], and its clocks; what a release does not print is ``None`` or empty."""

    load: float | None = None
    mhz: tuple[int, ...] = ()


class Tegra(NamedTuple):
    """One line of ``tegrastats``.

    Attributes:
        ram_mib: Used and total memory, which CPU and GPU share.
        largest_block_mib: The largest free block; a large allocation can fail while much is free in small ones.
        cores: Of the CPU; ``None`` for a core that is off.
        gpu: Load is not printed on Thor; a clock per graphics cluster.
        memory: The memory controller.
        celsius: Temperatures by zone; zones that are off are left out.
        milliwatts: Present power by rail.
    """

    ram_mib: tuple[int, int] | None
    largest_block_mib: int | None
    cores: tuple[Unit | None, ...]
    gpu: Unit
    memory: Unit
    celsius: dict[str, float]
    milliwatts: dict[str, int]


def parse_line(line: str) -> Tegra:
    """Read one line of JetPack 4 to 7; what is broken or missing is left out, and nothing is guessed.

    Example:
        >>> parse_line("RAM 4011/8138MB (lfb 8x4MB) CPU [12%@1190,off] GR3D_FREQ 35% GPU@49C VDD_IN 1234mW").milliwatts
        {'VDD_IN': 1234}
    """
    ram = re.search(r"(?:^|\s)RAM (\d+)/(\d+)MB", line)
    block = re.search(r"\(lfb \d+x(\d+)(MB|kB)\)", line)
    cores = re.search(r"(?:^|\s)CPU \[([^\]]*)\]", line)
    celsius = {name: float(value) for name, value in TEMPERATURE.findall(line)}
    return Tegra(
        ram_mib=(int(ram[1]), int(ram[2])) if ram else None,
        largest_block_mib=(int(block[1]) if block[2] == "MB" else int(block[1]) // 1024) if block else None,
        cores=tuple(_core(text) for text in cores[1].split(",")) if cores else (),
        gpu=_unit("GR3D_FREQ", line),
        memory=_unit("EMC_FREQ", line),
        celsius={name: value for name, value in celsius.items() if value > OFFLINE_CELSIUS},
        milliwatts={name: int(value) for name, value in POWER.findall(line)},
    )


def _core(text: str) -> Unit | None:
    match = CORE.match(text.strip())
    return Unit(int(match[1]) / 100, (int(match[2]),) if match[2] else ()) if match else None


def _unit(name: str, line: str) -> Unit:
    match = re.search(ENGINE.format(name=name), line)
    if match is None:
        return Unit()
    clocks = tuple(int(mhz) for mhz in re.findall(r"\d+", match[2] or ""))
    return Unit(int(match[1]) / 100 if match[1] else None, clocks)
