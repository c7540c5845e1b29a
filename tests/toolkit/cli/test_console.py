"""Tables in narrow terminals and in pipes; progress where no bar can be drawn."""

from __future__ import annotations

import pytest
from rich.console import Console

from rctk.cli import console
from rctk.cli.console import Bars, table

COLUMNS = ("file", "median ms", "size")
ROWS = (("float", "0.123", "299.8 KiB"), ("int8 for the processor", "0.045", "81.0 KiB"))


@pytest.fixture
def printed(monkeypatch, capsys):
    """Print a table in a terminal of the given width, or in a pipe."""

    def call(width, *arguments):
        if width is not None:
            monkeypatch.setattr(console, "Results", lambda: Console(width=width, highlight=False, markup=False))
        table(*arguments)
        return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    return call


def test_a_pipe_gets_every_row_on_one_line(printed):
    long = "word " * 200
    lines = printed(None, "title", ("name", "text"), [("a", long)])
    assert lines[0] == "title"
    assert lines[-1] == f"a     {long.rstrip()}"


def test_a_wide_terminal_gets_the_table_as_it_is(printed):
    assert printed(80, "title", COLUMNS, ROWS) == [
        "title",
        "file                    median ms  size",
        "─" * 45,
        "float                   0.123      299.8 KiB",
        "int8 for the processor  0.045      81.0 KiB",
    ]


def test_columns_become_rows_where_that_fits(printed):
    wide = printed(50, "title", ("file", *"abcdefghijklmnopqrst"), [("x", *["1"] * 20), ("y", *["2"] * 20)])
    assert wide[1:5] == ["file  x  y", "─" * 11, "a     1  2", "b     1  2"]
    assert len(wide) == 3 + 20


def test_columns_become_rows_before_cells_fold(printed):
    assert printed(40, "title", COLUMNS, ROWS[1:])[1:] == [
        "file       int8 for the processor",
        "─" * 34,
        "median ms  0.045",
        "size       81.0 KiB",
    ]


def test_cells_fold_between_words(printed):
    lines = printed(34, "title", COLUMNS, ROWS)
    assert max(map(len, lines)) <= 34
    assert "int8 for" in "\n".join(lines)
    assert "processor" in "\n".join(lines)


def test_nothing_is_lost_where_no_table_fits(printed):
    lines = printed(12, "title", COLUMNS, ROWS)
    assert lines[:5] == ["title", "file: float", "median ms:", "0.123", "size: 299.8"]


def test_names_in_brackets_are_no_markup(printed):
    assert printed(80, "[bold]", ("a",), [("[red]x",)])[::3] == ["[bold]", "[red]x"]


def test_without_a_terminal_a_finished_stage_is_one_line(capsys):
    bars = Bars()
    with bars.stage("calibrate", 30) as step:
        step(10)
        step(20)
    with bars.stage("bench"):
        pass
    with bars.stage("tries") as step:
        step(3)
    with bars.stage("training", 30) as step:  # ended early
        step(20)
    with bars.stage("training", 1437) as step:  # two processes did as many each
        step(1438)
    bars.note("a [note]")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "calibrate: 30 of 30 done in 0.0 s",
        "bench: 0.0 s",
        "tries: 3 done in 0.0 s",
        "training: 20 of 30 done in 0.0 s",
        "training: 1438 done in 0.0 s",
        "note: a [note]",
    ]


def test_a_long_stage_says_now_and_then_where_it_is(capsys, monkeypatch):
    now = iter([0.0, 5.0, 12.0, 12.0, 13.0, 30.0, 30.0, 30.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(now))
    with Bars().stage("pgd", 4) as step:
        for _ in range(4):
            step(1)
    assert capsys.readouterr().err.splitlines() == ["pgd: 2 of 4 after 12 s", "pgd: 4 of 4 done in 30.0 s"]


def test_a_stage_that_fails_says_nothing(capsys):
    with pytest.raises(ValueError, match="x"), Bars().stage("calibrate", 30):
        raise ValueError("x")
    assert capsys.readouterr().err == ""
