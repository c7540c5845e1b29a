"""Whole files or none, and what names them."""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path

from rctk_kernels.errors import ModelError


def write_atomically(path: Path, data: memoryview) -> None:
    """Write beside ``path``, force to disk, rename; whatever goes wrong, ``path`` stays as it was."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise ModelError(
            f"cannot write {path}: {error.strerror}; nothing was changed, check folder, permission and free space"
        ) from error
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
