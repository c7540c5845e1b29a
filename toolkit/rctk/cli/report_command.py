"""``rctk report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from rctk.records import read_records
from rctk.report import render_html, render_markdown, render_terminal


def report_(
    path: Path,
    *,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None,
    markdown: Path | None = None,
    html: bool = True,
) -> None:
    """Render records as tables, and as one self-contained HTML page with plots.

    Args:
        path: Folder with records.jsonl, in it or below it, or one such file.
        out: The HTML page; report.html in the folder by default.
        markdown: Write the tables as Markdown there.
        html: Write the HTML page (needs matplotlib and seaborn).
    """
    records = read_records(path)
    render_terminal(records, Console())
    if markdown is not None:
        markdown.parent.mkdir(parents=True, exist_ok=True)
        markdown.write_text(render_markdown(records), encoding="utf-8")
        print(f"wrote {markdown}")
    if html:
        page = out or (path if path.is_dir() else path.parent) / "report.html"
        render_html(records, page)
        print(f"report: {page.resolve()}")
