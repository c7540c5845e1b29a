"""What ``rctk study`` says about its cells, and the exit code that follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rctk.cli.console import table
from rctk.records import Record
from rctk.study.cell import Cell
from rctk.study.run import Outcome
from rctk_kernels.errors import RctkError

MOST_NAMED = 5
DONE, NOT_HELD, UNDECIDED = 0, 1, 3


def say_plan(name: str, folder: Path, cells: Sequence[Cell], left: Sequence[Cell], *, commands: bool) -> None:
    """Say how many cells there are and how many of them are finished; with ``commands`` show each."""
    unfinished = {cell.key for cell in left}
    if commands:
        rows = [(cell.name, "to run" if cell.key in unfinished else "finished", cell.shown(folder)) for cell in cells]
        table(f"study {name} in {folder}", ("cell", "state", "command"), rows)
    kinds = {kind: sum(cell.kind == kind for cell in cells) for kind in dict.fromkeys(cell.kind for cell in cells)}
    parts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    to_do = f"{len(left)} to run" if left else "nothing to run"
    print(f"study {name}: {len(cells)} cells ({parts}), {len(cells) - len(left)} finished, {to_do}")


def finish(outcome: Outcome, records: Sequence[Record]) -> int:
    """Return the exit code: that of the gates, if every cell came to its end.

    Raises:
        RctkError: Cells failed; the message names them.
    """
    if outcome.failed:
        named = [f"{name} ({error})" for name, error in outcome.failed.items()]
        more = f"; and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
        late = f"; {len(outcome.waiting)} more wait for their bundles" if outcome.waiting else ""
        raise RctkError(
            f"{len(named)} of {len(outcome.results) + len(outcome.waiting)} cells failed: "
            f"{'; '.join(named[:MOST_NAMED])}{more}{late}. The others are kept; mend these and run the same command"
        )
    verdicts = {str(record.values.get("outcome")) for record in records if record.kind == "compare"}
    if "does not hold" in verdicts:
        return NOT_HELD
    return UNDECIDED if verdicts - {"holds"} else DONE
