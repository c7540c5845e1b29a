"""Ctrl-C, SIGTERM and a closed terminal end a command like an exception: cleanups run, results stay."""

from __future__ import annotations

import signal
import time
from types import FrameType

WORDS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    **({signal.SIGHUP: "the terminal was closed"} if hasattr(signal, "SIGHUP") else {}),
}
GRACE_S = 1.0
"""An impatient second signal within this time does not disturb the cleanup that the first one started."""


def end_at_once() -> None:
    """Let signals end the process without a word, except those that the parent process chose to ignore (``nohup``).

    This is for the time before a command begins: nothing is written yet, and an exception that meets the C extensions
    which are being imported then would abort the process now and then.
    """
    for number in WORDS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


class StoppedError(KeyboardInterrupt):
    """A signal asks the command to end; libraries let it through as they do Ctrl-C."""


class Stop:
    """Handler of the signals that end a command.

    Attributes:
        number: The signal that came, 0 while there was none. Code that swallows or rewords the exception, as C
            extensions do while they are imported, cannot hide it.
    """

    def __init__(self) -> None:
        self.number = 0
        self._since = float("-inf")

    def install(self) -> None:
        """Take over the signals, except those that the parent process chose to ignore (``nohup``)."""
        for number in WORDS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self)

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """End the command, unless its cleanup has just begun."""
        now = time.monotonic()
        if now - self._since > GRACE_S:
            self.number, self._since = number, now
            raise StoppedError

    def too_late(self) -> None:
        """Let no further signal disturb the way out; the exit code is decided."""
        for number in WORDS:
            signal.signal(number, signal.SIG_IGN)

    @property
    def code(self) -> int:
        """Exit code by the convention of shells: 128 and the number of the signal."""
        return 128 + (self.number or signal.SIGINT)

    @property
    def text(self) -> str:
        """What happened, for the user."""
        return f"{WORDS[signal.Signals(self.number or signal.SIGINT)]}; finished results are kept"
