"""Entry point of ``rctk``: table of commands, exit codes, and settings that must stand before a runtime is loaded."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

from cyclopts import App, CycloptsError

from rctk import __version__
from rctk_kernels.errors import RctkError

COMMANDS = {
    "export": "Compress a classifier to int8 and write a bundle.",
    "attack": "Attack a bundle's float model, twin or engine, or a bare engine file.",
    "bench": "Measure latency, throughput and memory of an engine on this machine.",
    "stress": "Corruptions, occlusion, rotations and JPEG: float against engine on the same images.",
    "compare": "Gate the deployed engine against its float parent; exit code 0, 1 or 3.",
    "audit": "Check whether robust accuracies can be believed, or gradients are masked.",
    "report": "Render records as tables, Markdown and one HTML page with plots.",
    "train": "Train a small classifier, plainly or adversarially, to a checkpoint.",
    "inspect": "Show what is in a bundle or an ONNX file.",
    "doctor": "Show what this machine can run and what to mend.",
    "list": "List attacks, engines, models, data sets, targets and calibrators.",
}
HOST = "rctk[host]"
EXTRAS = {
    **dict.fromkeys(("torch", "onnx", "onnxscript", "scipy", "sklearn", "PIL", "safetensors", "tqdm"), HOST),
    **dict.fromkeys(("matplotlib", "seaborn", "pandas"), HOST),
    "onnxruntime": "rctk[ort]",
}
"""Package to the extra that brings it."""
DONE, NOT_HELD, USER, UNDECIDED, BUG = 0, 1, 2, 3, 70
"""Exit codes; 130 and 143 follow from SIGINT and SIGTERM."""


def make_app() -> App:
    """Return the command line without importing any command."""
    app = App(
        name="rctk",
        help="Robust compression toolkit: compress a classifier, attack what ships, gate float against deployed.",
        version=__version__,
        help_format="plaintext",
        print_error=False,
        exit_on_error=False,
        result_action="return_value",
    )
    for name, text in COMMANDS.items():
        app.command(f"rctk.cli.{name}_command:{name}_", name=name, help=text)
    app.register_install_completion_command(help="Install completion for this shell.")
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code."""
    set_thread_defaults()
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: Sequence[str]) -> int:  # noqa: PLR0911  # one line per way to end
    """Run one command; return the exit code instead of leaving."""
    try:
        code = make_app()(arguments)
        sys.stdout.flush()
    except CycloptsError as error:
        return _say(_one_line(str(error)) + "; see `rctk --help` or `rctk COMMAND --help`")
    except RctkError as error:
        return _say(_one_line(str(error)))
    except ImportError as error:
        return _missing(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of the output has gone
        return DONE
    except OSError as error:
        return _say(f"{error.strerror or error}: {error.filename or 'output'}; free space or choose another place")
    except MemoryError:
        return _say("out of memory; use a smaller batch or fewer --samples")
    except KeyboardInterrupt:
        print("rctk: interrupted; finished results are kept", file=sys.stderr)
        return 130
    except _TerminatedError:
        print("rctk: terminated; finished results are kept", file=sys.stderr)
        return 143
    except Exception:  # noqa: BLE001  # whatever is left is a bug of rctk and shows its traceback
        return _bug()
    return code if isinstance(code, int) else DONE


class _TerminatedError(BaseException):
    """SIGTERM arrived."""


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise _TerminatedError


def _missing(error: BaseException) -> int:
    """Name the package that could not be imported and the extra that brings it."""
    cause: BaseException | None = error
    while cause is not None:
        package = (getattr(cause, "name", None) or "").partition(".")[0]
        if isinstance(cause, ModuleNotFoundError) and package in EXTRAS:
            return _say(f"this needs the package {package}, which is not installed; `pip install '{EXTRAS[package]}'`")
        cause = cause.__cause__
    return _bug()


def _bug() -> int:
    traceback.print_exc()
    print("rctk: this is a bug in rctk; please report it with the lines above", file=sys.stderr)
    return BUG


def _say(text: str) -> int:
    print(f"rctk: {text}", file=sys.stderr)
    return USER


def _one_line(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


def set_thread_defaults() -> None:
    """Keep OpenMP threads from spinning on a busy machine, unless the user decided otherwise.

    Two spinning threads beside other load run thirty times slower than one; ``PASSIVE`` waiting costs little.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


if __name__ == "__main__":
    main()
