"""What every test keeps, the tracer that coverage counts with, and the command line for those that call it."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from typing import NamedTuple

import pytest


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_arrives():
    """Take Ctrl-C up again where a shell ignores it for what it runs in the background: processes inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def tracer_kept():
    """Fail the test that ends or replaces it, since all later files of its worker would seem not to be run."""
    tracer = sys.gettrace()
    yield
    if sys.gettrace() is not tracer:
        sys.settrace(tracer)
        pytest.fail("this test ended the tracer of the run; give it back with sys.settrace(tracer)")


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def refusal(self):
        """The one line that says what the user can mend; progress of finished stages may stand before it."""
        lines = [line for line in self.err.splitlines() if line.startswith("rctk: ")]
        assert self.code == 2, self.err
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


@pytest.fixture
def rctk(capsys, monkeypatch, tmp_path):
    """Run a command in this process, in an empty folder."""
    from rctk.cli.main import run

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RCTK_DATA", raising=False)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    def call(*arguments):
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return Done(code, *capsys.readouterr())

    return call


@pytest.fixture
def heard():
    """Progress that keeps what it is told: ``notes``, and ``stages`` as name, total and what was done in turn."""
    from rctk.progress import Silent

    class Heard(Silent):
        def __init__(self):
            super().__init__()
            self.stages = []

        @contextmanager
        def stage(self, name, total=None):
            self.stages.append((name, total, []))
            yield self.stages[-1][2].append

    return Heard()
