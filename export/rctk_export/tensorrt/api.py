"""TensorRT's Python module: whether it is there, which generation it is, and what it says while it works."""

from __future__ import annotations

from collections import deque
from typing import Any, cast

from rctk_kernels.errors import EngineError, EngineUnavailableError, OptionError

try:
    import tensorrt as trt
except (ImportError, OSError) as error:
    raise EngineUnavailableError(
        f"TensorRT cannot be imported ({' '.join(str(error).split())[:200]}); on a Jetson install JetPack's "
        "python3-libnvinfer and make the environment with --system-site-packages, elsewhere `pip install "
        "'rctk[tensorrt]'`"
    ) from error

__all__ = ["Messages", "flag", "generation", "optional", "start_builder", "start_runtime", "trt"]

OLDEST, NEWEST_MAJOR = (10, 3), 11
KEPT = 200
"""Messages that are remembered; a build writes thousands."""


def generation() -> tuple[int, int]:
    """Return major and minor version; :class:`EngineUnavailableError` where rctk does not know that generation."""
    text = str(trt.__version__)
    parts = text.split(".")
    found = (int(parts[0]), int(parts[1])) if len(parts) > 1 and parts[0].isdigit() and parts[1].isdigit() else (0, 0)
    if found < OLDEST:
        raise EngineUnavailableError(
            f"TensorRT {text} is too old, rctk needs 10.3 (JetPack 6.1) to 11.x; update JetPack or TensorRT"
        )
    if found[0] > NEWEST_MAJOR:
        raise EngineUnavailableError(
            f"TensorRT {text} is newer than this rctk, which knows 10.3 to 11.x; run `pip install -U rctk`"
        )
    return found


def optional(owner: Any, name: str) -> Any:
    """Return a member that some versions lack, or None.

    Args:
        owner: A class or object of TensorRT.
        name: Of the member.
    """
    return getattr(owner, name, None)


def flag(owner: Any, name: str, what: str) -> Any:
    """Return a member that some versions lack; :class:`OptionError` says that ``what`` cannot be had here."""
    found = optional(owner, name)
    if found is None:
        raise OptionError(f"TensorRT {trt.__version__} has no {name}, so {what} cannot be had; leave it away")
    return found


class Messages:
    """What TensorRT logs: errors and warnings are remembered, nothing is printed.

    Failed calls return None or False; the reason is only here.
    """

    def __init__(self) -> None:
        self.errors: deque[str] = deque(maxlen=KEPT)
        self.warnings: deque[str] = deque(maxlen=KEPT)

    def logger(self) -> trt.ILogger:
        """Return a logger that writes here; keep it as long as what was made with it."""

        def log(_logger: object, severity: trt.ILogger.Severity, text: str) -> None:
            if severity in {trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR}:
                self.errors.append(" ".join(str(text).split()))
            elif severity == trt.ILogger.WARNING:
                self.warnings.append(" ".join(str(text).split()))

        def start(logger: Any) -> None:
            trt.ILogger.__init__(logger)

        # made at run time: a class statement on a base that type checkers know only with the module installed
        return cast("trt.ILogger", type("Log", (trt.ILogger,), {"__init__": start, "log": log})())

    def reason(self) -> str:
        """Return the last error, or a word that there was none."""
        return self.errors[-1][:400] if self.errors else "TensorRT logged no reason"

    def mentions(self, *words: str) -> bool:
        """Return whether any error holds one of ``words``, whatever its case."""
        return any(word in line.lower() for line in self.errors for word in words)


def start_builder(logger: trt.ILogger, messages: Messages) -> trt.Builder:
    """Return a builder; TensorRT's binding raises TypeError where CUDA does not start."""
    try:
        return trt.Builder(logger)
    except TypeError as error:
        raise EngineError(_no_start("builder", messages)) from error


def start_runtime(logger: trt.ILogger, messages: Messages) -> trt.Runtime:
    """Return a runtime; TensorRT's binding raises TypeError where CUDA does not start."""
    try:
        return trt.Runtime(logger)
    except TypeError as error:
        raise EngineError(_no_start("runtime", messages)) from error


def _no_start(what: str, messages: Messages) -> str:
    return f"TensorRT {trt.__version__} cannot start its {what}: {messages.reason()}; see what `rctk doctor` says"
