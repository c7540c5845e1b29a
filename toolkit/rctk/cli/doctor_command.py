"""``rctk doctor``."""

from __future__ import annotations

from rctk.cli.console import table
from rctk.doctor import checks


def doctor_() -> None:
    """Show what this machine can run and what to mend."""
    found = checks()
    table(
        "this machine",
        ("check", "state", "found", "next step"),
        [(c.name, c.state, c.found, c.step) for c in found],
    )
