"""The power mode of a Jetson: it caps every clock, so that figures of two modes are no comparison."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from rctk.measure.sysfs import ROOT, read_text

STATUS = "var/lib/nvpmodel/status"
CONFIG = "etc/nvpmodel.conf"


class PowerMode(NamedTuple):
    """A power mode; the number alone where its name is not known."""

    number: int
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name or 'mode'} ({self.number})"


def power_mode(root: Path = ROOT) -> PowerMode | None:
    """Return the present mode from the files that ``nvpmodel`` keeps, which any user may read; ``None`` elsewhere."""
    number = parse_status(read_text(root / STATUS))
    if number is None:
        return None
    return PowerMode(number, parse_config(read_text(root / CONFIG)).get(number, ""))


def parse_status(text: str) -> int | None:
    """Read the state file of ``nvpmodel``.

    Example:
        >>> parse_status("pmode:0002 fmode:quiet")
        2
    """
    match = re.search(r"\bpmode:\s*(\d+)", text)
    return int(match[1]) if match else None


def parse_config(text: str) -> dict[int, str]:
    """Return the names of all modes of ``nvpmodel.conf`` by number.

    Example:
        >>> parse_config("< POWER_MODEL ID=0 NAME=MAXN >")
        {0: 'MAXN'}
    """
    pairs = re.findall(r"^\s*<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", text, flags=re.MULTILINE)
    return {int(number): name for number, name in pairs}


def parse_query(text: str) -> PowerMode | None:
    r"""Read what ``nvpmodel -q`` prints; warnings and the fan's mode around it do not matter.

    Example:
        >>> parse_query("NV Power Mode: MODE_15W\n2")
        PowerMode(number=2, name='MODE_15W')
    """
    match = re.search(r"NV Power Mode:[ \t]*(\S+)\s*^\s*(\d+)\s*$", text, flags=re.MULTILINE)
    return PowerMode(int(match[2]), match[1]) if match else None
