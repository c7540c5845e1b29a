"""``rctk report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rctk.cli.console import Results
from rctk.cli.places import check_file
from rctk.records_merge import merge
from rctk.report import render_html, render_markdown, render_terminal
from rctk_export.whole_file import write_whole
from rctk_kernels.errors import RecordError


def report_(
    paths: list[Path],
    /,
    *,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None,
    markdown: Path | None = None,
    html: bool = True,
) -> None:
    """Render records as tables, and as one self-contained HTML page with plots.

    A record that several folders hold is one. Each machine is named where there are several.

    Example: rctk report runs runs-jetson --markdown runs/report.md

    Args:
        paths: Folders with records.jsonl, in them or below them, or such files.
        out: The HTML page; report.html in the first folder by default.
        markdown: Write the tables as Markdown there.
        html: Write the HTML page (needs matplotlib and seaborn).
    """
    page = out or (paths[0] if paths[0].is_dir() else paths[0].parent) / "report.html"
    check_file(markdown, "--markdown")
    if html:
        check_file(page, "--out")
    records = merge(paths).records
    if not records:
        names = ", ".join(map(str, paths))
        raise RecordError(f"{names} holds no record; make some with `rctk bench`, `rctk attack` or `rctk compare`")
    render_terminal(records, Results())
    if markdown is not None:
        markdown.parent.mkdir(parents=True, exist_ok=True)
        write_whole(markdown, render_markdown(records).encode())
        print(f"wrote {markdown}")
    if html:
        render_html(records, page)
        print(f"report: {page.resolve()}")
