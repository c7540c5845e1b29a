"""Tables, plots and one self-contained page from records; no result is computed that a record does not hold."""

from __future__ import annotations

from rctk.report.markdown import render_markdown
from rctk.report.page import render_html
from rctk.report.terminal import render_terminal

__all__ = ["render_html", "render_markdown", "render_terminal"]
