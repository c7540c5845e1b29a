"""Whole files or none, and what names them."""

from __future__ import annotations

import hashlib
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


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
