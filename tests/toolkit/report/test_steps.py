"""Records of ``rctk compress`` in the report."""

from __future__ import annotations

import pytest

from rctk.records import Record
from rctk.report.page import html_page
from rctk.report.tables import tables

BEFORE = {"parameters": 76522, "nonzero": 76522, "macs": 1000000, "size_bytes": 2048, "clean_accuracy": 0.95}
AFTER = {"parameters": 1000, "nonzero": 750, "macs": 20000, "size_bytes": 1024, "clean_accuracy": 0.9, "samples": 20}


def record(settings=None, values=None):
    recipe = [{"step": "prune.depgraph", "ratio": 0.3}, {"step": "train.finetune", "epochs": 2}]
    settings = {"recipe": recipe, "data": "digits:train", "seed": 3} if settings is None else settings
    values = {"before": BEFORE, "after": AFTER} if values is None else values
    return Record.of("compress", {"name": "small.pt", "arch": "pruned:digits-cnn"}, settings, values)


def test_a_row_holds_every_figure_before_and_behind_the_steps():
    found = tables([record()])[0]
    assert found.title == "Compressed checkpoints"
    assert dict(zip(found.headings, found.rows[0], strict=True)) == {
        "model": "small.pt",
        "architecture": "pruned:digits-cnn",
        "steps": "prune.depgraph + train.finetune",
        "parameters": "76,522 → 1,000",
        "MACs": "1,000,000 → 20,000",
        "tensors": "2.0 KiB → 1.0 KiB",
        "zeros": "25.0 %",
        "clean": "95.0 % → 90.0 %",
        "images": "20",
        "data": "digits:train",
        "seed": "3",
        "machine": found.rows[0][found.headings.index("machine")],
        "time (UTC)": found.rows[0][-1],
    }
    assert "Compressed checkpoints" in html_page([record()])


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        ({}, {}),
        ({"recipe": "none"}, {"before": 3, "after": []}),
        ({"recipe": [7]}, {"before": {}, "after": {"parameters": 0, "nonzero": 0}}),
    ],
)
def test_strange_records_leave_gaps(settings, values):
    found = tables([record(settings, values)])[0]
    assert found.rows[0][found.headings.index("zeros")] == "-"
