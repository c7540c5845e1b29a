"""Whole files or none."""

from __future__ import annotations

from pathlib import Path

from rctk_export.whole_file import write_whole
from rctk_kernels.errors import ModelError


def write_atomically(path: Path, data: memoryview) -> None:
    """Write beside ``path``, force to disk, rename; whatever goes wrong, ``path`` stays as it was."""
    try:
        write_whole(path, data)
    except OSError as error:
        raise ModelError(
            f"cannot write {path}: {error.strerror}; nothing was changed, check folder, permission and free space"
        ) from error
