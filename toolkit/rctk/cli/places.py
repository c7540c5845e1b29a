"""Where results will go is looked at before the work begins, so that no long run ends in a refusal."""

from __future__ import annotations

import os
from pathlib import Path

from rctk_kernels.errors import OptionError


def check_folder(folder: Path, flag: str) -> None:
    """Refuse a folder that can neither be written nor made; nothing is made here."""
    nearest = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), Path())
    if not nearest.is_dir():
        raise OptionError(f"cannot write below {nearest}, which is a file; choose another place with {flag}")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OptionError(f"no permission to write in {nearest.resolve()}; choose another place with {flag}")


def check_file(path: Path | None, flag: str) -> None:
    """Refuse a file that can neither be written nor made; None passes."""
    if path is None:
        return
    if path.is_dir():
        raise OptionError(f"{path} is a folder; give the name of a file with {flag}")
    if path.exists() and not os.access(path, os.W_OK):
        raise OptionError(f"no permission to write {path}; choose another place with {flag}")
    check_folder(path.parent, flag)


def check_checkpoint(path: Path, flag: str) -> None:
    """Refuse a file that is to be a checkpoint and is named otherwise, or cannot be made."""
    if path.suffix == ".onnx":
        raise OptionError(f"{flag} {path} names an ONNX file; a checkpoint ends in .pt or .safetensors")
    check_file(path, flag)
