"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write beside ``path``, force to disk, rename; whatever goes wrong, ``path`` stays as it was.

    A link keeps pointing where it does, and what is no regular file, such as ``/dev/stdout``, is written as it is.

    Args:
        path: An existing file is replaced in one step; the folder is there.
        data: All of it.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as stream:
            stream.write(data)
        return
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        error.filename = str(path)  # a full disk does not say where
        raise
    finally:
        part.unlink(missing_ok=True)
