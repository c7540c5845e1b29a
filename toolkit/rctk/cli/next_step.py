"""What a command proposes to do with its result."""

from __future__ import annotations

from pathlib import Path

from rctk.models import runs_code


def next_export(path: Path, arch: str, calibration: str = "SET:train") -> str:
    """Return the line that tells how to export a checkpoint; only code of the user's own has to be named again."""
    code = f" --arch {arch}" if runs_code(arch) else ""
    return f"next: rctk export --int8 {path}{code} --calibration {calibration}"
