"""Which candidates carry over: a heat map of sources and targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rctk.records import Record
from rctk.report.canvas import MUTED, Plot, new_figure, plain, styled, svg
from rctk.report.tables import numbers
from rctk.report.words import budget, is_number, text

DARK = 0.55
"""Share from which on white digits are easier to read."""


class Matrix(NamedTuple):
    """Share of images that candidates of each source break on each target, ``(S, T)``; NaN where no record tells."""

    label: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    broken: npt.NDArray[np.float64]


def matrices(records: Sequence[Record]) -> list[Matrix]:
    """Return one matrix per transfer record that holds cells, oldest first."""
    found = []
    for record in (record for record in records if record.kind == "transfer"):
        listed = record.values.get("robust")
        cells = [numbers(cell) for cell in (listed if isinstance(listed, list | tuple) else [])]
        cells = [c for c in cells if is_number(c.get("hits")) and is_number(c.get("samples")) and c["samples"] > 0]
        sources = tuple(dict.fromkeys(text(cell.get("source")) for cell in cells))
        targets = tuple(dict.fromkeys(text(cell.get("target")) for cell in cells))
        broken = np.full((len(sources), len(targets)), np.nan)
        for cell in cells:
            at = sources.index(text(cell.get("source"))), targets.index(text(cell.get("target")))
            broken[at] = 1 - cell["hits"] / cell["samples"]
        settings = record.settings
        label = f"{text(settings.get('attack'))}, {budget(settings.get('norm'), settings.get('eps'))}"
        if cells:
            found.append(Matrix(label, sources, targets, broken))
    return found


def transfer_plot(records: Sequence[Record]) -> Plot | None:
    """Return the heat map of the newest transfer record, or ``None`` where there is none."""
    found = matrices(records)
    if not found:
        return None
    newest = found[-1]
    more = f" The newest of {len(found)}; the table below holds all." if len(found) > 1 else ""
    with styled() as sns:
        figure, (axes,) = new_figure(1.4 + 0.45 * len(newest.sources))
        shown = np.where(np.isnan(newest.broken), 0.0, newest.broken)
        axes.imshow(shown, cmap=sns.color_palette("crest", as_cmap=True), vmin=0, vmax=1, aspect="auto")
        axes.grid(visible=False)
        for (row, column), value in np.ndenumerate(newest.broken):
            words = "-" if np.isnan(value) else f"{100 * value:.1f} %"
            axes.text(column, row, words, ha="center", va="center", color="white" if value > DARK else "black")
        axes.set_xticks(range(len(newest.targets)), [plain(name) for name in newest.targets])
        axes.set_yticks(range(len(newest.sources)), [plain(name) for name in newest.sources])
        axes.set_xlabel("tried on")
        axes.set_ylabel("crafted on")
        axes.set_title(plain(newest.label), loc="left", color=MUTED, fontsize=9)
        return Plot(
            "Transfer of adversarial images",
            "Share of the images that all targets get right and that candidates made for the row break on the column. "
            "Intervals are in the table." + more,
            svg(figure),
        )
