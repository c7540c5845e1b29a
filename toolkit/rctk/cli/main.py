"""Entry point of ``rctk``: exit codes, and settings that must stand before a runtime is loaded."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence

from rctk.cli.stop import Stop, end_at_once
from rctk_kernels.errors import RctkError

HOST = "rctk[host]"
EXTRAS = {
    **dict.fromkeys(("torch", "onnx", "onnxscript", "scipy", "sklearn", "PIL", "safetensors", "tqdm"), HOST),
    **dict.fromkeys(("matplotlib", "seaborn", "pandas", "lightning_fabric", "torch_pruning", "yaml"), HOST),
    "onnxruntime": "rctk[ort]",
    "openvino": "rctk[openvino]",
    **dict.fromkeys(("tritonclient", "grpc"), "rctk[remote]"),
    **dict.fromkeys(("uvicorn", "starlette"), "rctk[serve]"),
}
"""Package to the extra that brings it."""
DONE, NOT_HELD, USER, UNDECIDED, BUG, UNREAD = 0, 1, 2, 3, 70, 141
"""Exit codes; 130 and 143 follow from SIGINT and SIGTERM, 141 is what shells report when the reader of a pipe left."""
STEPS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free some space or choose another disk"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "choose a place that you may write to"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG), "check the path"),
}
"""What to do about a failed system call."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code."""
    end_at_once()
    set_environment()
    open_streams()
    stop = Stop()
    code = run(sys.argv[1:] if arguments is None else list(arguments), stop, stop.install)
    stop.too_late()
    sys.exit(code)


def run(arguments: Sequence[str], stop: Stop | None = None, ready: Callable[[], None] = lambda: None) -> int:
    """Run one command; return the exit code instead of leaving.

    Args:
        arguments: The words behind ``rctk``.
        stop: Handler of the signals that end the command.
        ready: Called when the command is imported, before it begins.
    """
    stop = stop or Stop()
    try:
        code = _run(arguments, ready)
    except KeyboardInterrupt:
        code = stop.code
    except BaseException as error:  # noqa: BLE001  # whatever is left is a bug of rctk and shows its traceback
        code = stop.code if stop.number else _failed(error)
    else:
        code = stop.code if stop.number else code
    if code == stop.code:
        _say(stop.text)
    return code


def _run(arguments: Sequence[str], ready: Callable[[], None]) -> int:
    from rctk.cli.app import make_app  # noqa: PLC0415  # what signals do is decided before anything large is imported

    app = make_app(arguments)
    ready()
    code = app(arguments)
    sys.stdout.flush()
    return code if isinstance(code, int) else DONE


def _failed(error: BaseException) -> int:
    """Say on one line what the user can mend; a bug shows its traceback."""
    from cyclopts import CycloptsError  # noqa: PLC0415

    from rctk.cli.usage import usage_line  # noqa: PLC0415

    if isinstance(error, CycloptsError):
        return _say(usage_line(error))
    if isinstance(error, RctkError):
        return _say(str(error))
    if isinstance(error, ImportError):
        return _missing(error)
    if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):
        error = error.__context__  # rich ends so where the reader of a help page has gone
    if isinstance(error, OSError):
        return _system(error)
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # torch's own words
        return _say("out of memory; use a smaller batch or fewer --samples")
    return _bug(error)


def _system(error: OSError) -> int:
    if error.filename is None and error.errno in {errno.EPIPE, errno.ENOSPC, errno.EIO}:  # of stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer goes nowhere
    if isinstance(error, BrokenPipeError):
        return UNREAD  # the reader of the output has gone, as `head` does
    step = STEPS.get(error.errno or 0, "look at the path and the disk")
    return _say(f"{error.filename or 'output'}: {error.strerror or error}; {step}")


def _missing(error: ImportError) -> int:
    """Name the package that could not be imported and the extra that brings it."""
    cause: BaseException | None = error
    while cause is not None:
        package = (getattr(cause, "name", None) or "").partition(".")[0]
        if isinstance(cause, ModuleNotFoundError) and package in EXTRAS:
            return _say(f"this needs the package {package}, which is not installed; `pip install '{EXTRAS[package]}'`")
        cause = cause.__cause__
    return _bug(error)


def _bug(error: BaseException) -> int:
    import traceback  # noqa: PLC0415  # what is imported before the signals are ours can still be interrupted badly

    traceback.print_exception(error)
    _say("this is a bug in rctk; please report it with the lines above")
    return BUG


def _say(text: str) -> int:
    print(f"rctk: {' '.join(text.split())}", file=sys.stderr)
    return USER


def open_streams() -> None:
    """Make stdout and stderr take everything: where the caller closed them, and any file name."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by `>&-`; the next file that is opened must not become it
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        else:
            stream.reconfigure(errors="backslashreplace")


def set_environment() -> None:
    """Tell runtimes what they read when they are loaded, unless the user decided otherwise.

    Two spinning OpenMP threads beside other load run thirty times slower than one; ``PASSIVE`` waiting costs little.
    ONNX Runtime reports its use to its maker; whose model it is and what is done to it is nobody else's business.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


if __name__ == "__main__":
    main()
