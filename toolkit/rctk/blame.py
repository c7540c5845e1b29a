"""Errors about a graph name the file that it came from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rctk_kernels.errors import GraphError, MismatchError


@contextmanager
def blame(path: Path) -> Iterator[None]:
    """Put the name of the file in front of what is wrong with its graph, unless it is there already."""
    try:
        yield
    except (GraphError, MismatchError) as error:
        if path.name in str(error):
            raise
        raise type(error)(f"{path.name}: {error}") from error
