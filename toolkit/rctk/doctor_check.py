"""One line of ``rctk doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "missing", "warning"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the doctor.

    Attributes:
        name: What was looked at.
        state: ``missing`` where something cannot be used, ``warning`` where it works and results may suffer.
        found: What is there.
        step: What to do; empty where all is well.
    """

    name: str
    state: State
    found: str
    step: str = ""


def judged(name: str, found: str, step: str, state: State = "warning") -> Check:
    """Return a check that is ok where there is no step to take, else in ``state``."""
    return Check(name=name, state=state if step else "ok", found=found, step=step)
