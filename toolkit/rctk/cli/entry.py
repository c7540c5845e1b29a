"""The first lines of ``rctk`` that run: from here on Ctrl-C leaves no traceback, also while the rest is imported.

Importing this module changes what Ctrl-C does. Only the console script does that; everything else imports
:mod:`rctk.cli.main`.
"""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where the parent ignores it, as nohup does
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def main() -> None:
    """Run ``rctk``; its own handler takes over when the command begins."""
    from rctk.cli.main import main as run  # noqa: PLC0415  # after the line above

    run()
