"""Which cells of a study run."""

from __future__ import annotations

from collections.abc import Sequence

from rctk.study.cell import Cell
from rctk_kernels.errors import OptionError

MOST_SHOWN = 4


def chosen(cells: Sequence[Cell], text: str) -> tuple[Cell, ...]:
    """Return the cells whose name holds ``text``, capitals or not, and those that make their bundles."""
    wanted = [cell for cell in cells if text.lower() in cell.name.lower()]
    if cells and not wanted:
        names = "; ".join(cell.name for cell in cells[:MOST_SHOWN])
        raise OptionError(f"--only {text}: none of {len(cells)} cells has that in its name; they are such as {names}")
    needed = {cell.key for cell in wanted} | {cell.needs.key for cell in wanted if cell.needs is not None}
    return tuple(cell for cell in cells if cell.key in needed)
