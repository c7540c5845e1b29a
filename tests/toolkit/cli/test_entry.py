"""Ctrl-C in the first moments ends quietly."""

from __future__ import annotations

import signal
import subprocess
import sys

KILL = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('alive')"


def ran(text):
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False)


def test_ctrl_c_while_rctk_is_imported_leaves_no_traceback():
    done = ran(f"import rctk.cli.entry; {KILL}")
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_a_signal_that_the_parent_ignores_stays_ignored():
    done = ran(f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); import rctk.cli.entry; {KILL}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")


def test_the_handler_of_a_command_takes_over():
    stop = f"main.run = lambda _words, _stop, ready: (ready(), exec({KILL!r}))"
    text = f"from rctk.cli import entry, main; {stop}; entry.main()"
    done = ran(text)
    assert "Traceback" in done.stderr  # nobody catches it here: the exception is ours again
    assert "StoppedError" in done.stderr


def test_nothing_but_signal_is_imported_before():
    done = ran("import sys; before = set(sys.modules); import rctk.cli.entry; print(*(set(sys.modules) - before))")
    assert {name for name in done.stdout.split() if name.startswith("rctk")} == {"rctk", "rctk.cli", "rctk.cli.entry"}
