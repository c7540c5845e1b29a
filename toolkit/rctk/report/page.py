"""One page that holds everything: no scripts, no fonts and no pictures from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from rctk import __version__
from rctk.records import Record
from rctk.report.canvas import Plot
from rctk.report.plot_accuracy import accuracy_plot
from rctk.report.plot_cost import cost_plot
from rctk.report.plot_curve import curve_plots
from rctk.report.plot_latency import latency_plot
from rctk.report.plot_tiers import tier_plot
from rctk.report.plot_transfer import transfer_plot
from rctk.report.protocols import all_tables
from rctk.report.tables import Table, file_name
from rctk.report.words import budget, number, text
from rctk_export.whole_file import write_whole
from rctk_kernels.errors import RecordError

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""The page may show what it holds and nothing else, whatever a record's names contain."""
MARKS = {"holds": "✓", "does not hold": "✗", "not enough samples": "?"}
MOST_VERDICTS = 12
STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 2rem auto; max-width: 92rem;
  padding: 0 1.5rem; }
h1 { font-size: 1.6rem; margin: 0; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .3rem; }
p, figcaption, li { max-width: 62rem; }
.quiet, figcaption { color: #555; font-size: .9rem; }
.verdicts { display: grid; grid-template-columns: repeat(auto-fill, minmax(21rem, 1fr)); gap: .8rem; margin: 1rem 0;
  padding: 0; list-style: none; }
.verdicts li { border: 1px solid #ccc; border-left-width: 6px; border-radius: 4px; padding: .5rem .8rem;
  overflow-wrap: anywhere; }
.verdicts .holds { border-left-color: #0173b2; }
.verdicts .does-not-hold { border-left-color: #d55e00; }
.verdicts .not-enough-samples { border-left-color: #949494; }
figure { margin: .5rem 0 1rem; break-inside: avoid; }
figure img { width: 100%; max-width: 62rem; height: auto; }
ol.key { columns: 2 26rem; column-gap: 3rem; font-size: .85rem; margin-top: .2rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid #888; vertical-align: bottom; }
td { overflow-wrap: break-word; max-width: 22rem; }
td.number, th.number { text-align: right; }
td.number { white-space: nowrap; }
tbody tr:nth-child(even) { background: #f7f7f7; }
@page { size: landscape; margin: 12mm; }
@media print { html { font-size: 11px; } body { margin: 0; max-width: none; font-size: 11px; }
  .wide { overflow: visible; } table { font-size: 7px; } th, td { padding: .1rem .2rem; } tr { break-inside: avoid; } }
"""


def render_html(records: Sequence[Record], path: Path) -> None:
    """Write the page; an earlier one is replaced only when the new one is complete."""
    page = html_page(records).encode()
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, page)
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror or error}; choose a writable file by --out") from error


def html_page(records: Sequence[Record]) -> str:
    """Return the page as text; the same records give the same page."""
    drawn = [accuracy_plot(records), tier_plot(records), *curve_plots(records), transfer_plot(records)]
    drawn += [latency_plot(records), cost_plot(records)]
    plots = [plot for plot in drawn if plot is not None]
    days = sorted({record.time[:10] for record in records})
    span = text(" to ".join(dict.fromkeys((days[0], days[-1])))) if days else "none yet"
    body = [
        "<h1>rctk report</h1>",
        f'<p class="quiet">Records: {number(len(records))}, {escape(span)}. Made by rctk {escape(__version__)}.</p>',
        _verdicts(records),
        *(_figure(plot) for plot in plots),
        *(_table(table) for table in all_tables(records)),
    ]
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>rctk report</title><style>{STYLE}</style>"
    )
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def _verdicts(records: Sequence[Record]) -> str:
    compared = [record for record in records if record.kind == "compare"][-MOST_VERDICTS:]
    if not compared:
        return ""
    return f'<ul class="verdicts">{"".join(_verdict(record) for record in reversed(compared))}</ul>'


def _verdict(record: Record) -> str:
    outcome = str(record.values.get("outcome", ""))
    mark = MARKS.get(outcome, "")
    style = outcome.replace(" ", "-") if mark else ""
    threat = budget(record.settings.get("norm"), record.settings.get("eps"))
    basis = f"{text(record.settings.get('data'))}, {number(record.values.get('samples'))} images, {threat}"
    where = ", ".join([text(record.subject.get("name")), file_name(record.subject), text(record.subject.get("engine"))])
    return (
        f'<li class="{style}"><strong>{mark} {escape(text(outcome))}</strong><br>{escape(where)}<br>'
        f'<span class="quiet">{escape(basis)}</span>{_disbelief(record)}</li>'
    )


def _disbelief(record: Record) -> str:
    why = record.values.get("disbelief")
    return f"<br><strong>{escape(text(why, 300))}</strong>" if why else ""


def _figure(plot: Plot) -> str:
    picture = base64.b64encode(plot.svg).decode("ascii")
    names = "".join(f"<li>{escape(name)}</li>" for name in plot.key)
    key = f'<ol class="key">{names}</ol>' if names else ""
    return (
        f"<h2>{escape(plot.title)}</h2><figure>"
        f'<img alt="{escape(plot.title)}; the tables below hold its numbers" src="data:image/svg+xml;base64,{picture}">'
        f"<figcaption>{escape(plot.caption)}</figcaption>{key}</figure>"
    )


def _table(table: Table) -> str:
    sides = [' class="number"' if right else "" for right in table.right]
    head = "".join(f"<th{side}>{escape(name)}</th>" for side, name in zip(sides, table.headings, strict=True))
    rows = "".join(
        f"<tr>{''.join(f'<td{side}>{escape(cell)}</td>' for side, cell in zip(sides, row, strict=True))}</tr>\n"
        for row in table.rows
    )
    note = f'<p class="quiet">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<h2>{escape(table.title)}</h2>{note}<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{rows}</tbody></table></div>"
    )
