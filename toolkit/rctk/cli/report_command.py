"""``rctk report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rctk.cli.console import Results
from rctk.cli.places import check_file
from rctk.records import read_records
from rctk.report import render_html, render_markdown, render_terminal
from rctk_export.whole_file import write_whole
from rctk_kernels.errors import RecordError


def report_(
    path: Path,
    /,
    *,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None,
    markdown: Path | None = None,
    html: bool = True,
) -> None:
    """Render records as tables, and as one self-contained HTML page with plots.

    Example: rctk report runs --markdown runs/report.md

    Args:
        path: Folder with records.jsonl, in it or below it, or one such file.
        out: The HTML page; report.html in the folder by default.
        markdown: Write the tables as Markdown there.
        html: Write the HTML page (needs matplotlib and seaborn).
    """
    page = out or (path if path.is_dir() else path.parent) / "report.html"
    check_file(markdown, "--markdown")
    if html:
        check_file(page, "--out")
    records = read_records(path)
    if not records:
        raise RecordError(f"{path} holds no record; make some with `rctk bench`, `rctk attack` or `rctk compare`")
    render_terminal(records, Results())
    if markdown is not None:
        markdown.parent.mkdir(parents=True, exist_ok=True)
        write_whole(markdown, render_markdown(records).encode())
        print(f"wrote {markdown}")
    if html:
        render_html(records, page)
        print(f"report: {page.resolve()}")
