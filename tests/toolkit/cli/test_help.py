"""Help pages as a new user reads them."""

from __future__ import annotations

import re

import pytest

from rctk.cli.app import COMMANDS

MARKUP = re.compile(r"``|:\w+:`|\[/?\w*bold|\*\*")
PLAIN = [name for name in COMMANDS if name != "doctor"]


@pytest.fixture
def page(rctk, monkeypatch):
    """The help page of a command in a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def read(*arguments):
        done = rctk(*arguments, "--help")
        assert done.code == 0, done.err
        assert done.err == ""
        return done.out

    return read


def test_rctk_alone_shows_the_commands(rctk, page):
    assert rctk().out == page()
    assert [name for name in COMMANDS if f"│ {name} " not in page()] == []


@pytest.mark.parametrize("command", [*COMMANDS, ""])
def test_pages_are_plain_text_within_the_terminal(page, command):
    text = page(command) if command else page()
    assert not MARKUP.findall(text)
    assert max(map(len, text.splitlines())) <= 80
    assert "[default: ]" not in text
    assert "0.0313" not in text


@pytest.mark.parametrize("command", PLAIN)
def test_pages_have_an_example_that_names_the_command(page, command):
    assert f"rctk {command} " in page(command).partition("─ ")[0].partition("\n")[2]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_described(page, command):
    flags = re.findall(r"^│ [* ]*(--[\w-]+[^│]*)│$", page(command), re.MULTILINE)
    assert [flag for flag in flags if len(flag.split()) < 2] == []


def test_defaults_read_as_they_are_written(page):
    assert "[default: 8/255]" in page("attack")
    assert "[default: cpu, tensorrt]" in page("export")
    assert "square:queries=500" in page("compare")


def test_what_runs_code_is_said_where_it_is_chosen(page):
    text = " ".join(page("export").replace("│", " ").split())
    assert "TorchScript, .pt2 and --arch FILE.py run code: use files you trust." in text
    assert "which runs whatever code it holds" in text


def test_the_version(rctk):
    from rctk import __version__

    assert rctk("--version").out.strip() == __version__


def test_completion_can_be_installed(page):
    assert "--install-completion" in page()
