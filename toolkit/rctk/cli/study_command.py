"""``rctk study``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rctk.cli.console import Bars, table
from rctk.cli.flags import Switch, Whole
from rctk.cli.places import check_folder
from rctk.cli.study_cells import CellCommands
from rctk.cli.study_words import finish, say_plan
from rctk.report import render_html
from rctk.report.study_table import study_tables
from rctk.study.plan import plan
from rctk.study.read import read_study
from rctk.study.run import Outcome, Runner
from rctk.study.selection import chosen
from rctk.study.store import Store
from rctk.study.study import slug
from rctk_kernels.errors import OptionError


def study_(
    file: Path,
    /,
    *,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None,
    dry_run: Switch = False,
    only: str = "",
    jobs: Whole = 0,
    html: bool = True,
) -> int:
    """Run a study: models x methods x attacks x engines from one YAML file, as cells that are kept.

    Every cell is a command of rctk with its flags as keys. All of them are checked before the first one runs. Finished
    cells are found again as long as files, settings and versions are the same, so that the same command goes on after
    Ctrl-C, and a changed study runs what changed. A cell that fails is named, and the others go on.

    Example: rctk study study.yaml --dry-run

    Args:
        file: The study; docs/studies.md shows one.
        out: Folder for bundles, cells, records and the report; STUDY-NAME by default.
        dry_run: Only show the cells, which of them are finished, and the command line of each.
        only: Run the cells whose name holds this text, and those that make their bundles.
        jobs: Cells at a time, each in a process of its own; 0 runs them one after the other in this process. Times are
            measured with nothing beside them.
        html: Write the HTML page (needs matplotlib and seaborn).
    """
    if jobs < 0:
        raise OptionError(f"--jobs must be 0 or more, got {jobs}")
    commands, progress = CellCommands(), Bars()
    study = read_study(file, commands)
    folder = out or Path(f"STUDY-{slug(study.name)}")
    check_folder(folder, "--out")
    store = Store(folder)
    store.check()
    for note in study.notes:
        progress.note(note)
    with progress.stage("check models, images and settings"):
        every = plan(study, commands)
    cells = chosen(every, only)
    left = [cell for cell in cells if store.finished(cell) is None]
    say_plan(study.name, folder, cells, left, commands=dry_run)
    if dry_run:
        return 0
    outcome = Outcome()
    try:
        Runner(store=store, commands=commands, jobs=jobs, progress=progress).run(left, outcome)
    finally:
        records = store.write_records(every)
    for summary in study_tables(records):
        table(f"study {study.name}", summary.headings, summary.rows)
    if html and records:
        page = folder / "report.html"
        render_html(records, page)
        print(f"report: {page.resolve()}")
    return finish(outcome, records)
