"""Measurements that need a process of their own: start it, ask it, word its failure in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rctk
from rctk_export.engine import Source
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import EngineError, RctkError

SECONDS = 600.0


def ask(module: str, engine: str, source: Source, *, batch: int, timeout_s: float = SECONDS) -> dict[str, Any]:
    """Run ``python -m module`` on one engine and return the JSON object that it prints last.

    The process gets this one's environment and nothing else.

    Args:
        module: Such as ``rctk.measure.memory``; its main part is :func:`answer`.
        engine: Member of the engine table with its settings, such as ``onnxruntime:threads=1``.
        source: The model file.
        batch: Images per call.
        timeout_s: The process is ended after so many seconds.

    Raises:
        EngineError: One line, where the process failed, was killed or took too long.
    """
    what = f"measuring the {module.rpartition('.')[2].replace('_', ' ')} of {engine}"
    given = {**asdict(source), "path": str(source.path.resolve())}
    request = json.dumps({"engine": engine, "source": given, "batch": batch})
    try:
        done = subprocess.run(  # noqa: S603  # this interpreter and a module of this package
            [sys.executable, "-m", module, request],
            cwd=Path(rctk.__file__).parent.parent,  # not the user's folder, whose files could shadow modules
            env=_environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{what} took more than {timeout_s:g} s; give a smaller batch") from error
    if done.returncode != 0:
        raise EngineError(f"{what} failed: {reason(done.returncode, done.stderr)}")
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return values


def answer(measure: Callable[[str, Source, int], Mapping[str, Any]], request: str) -> None:
    """Be that process: measure what ``request`` names and print it, or end with the error's line."""
    values = json.loads(request)
    given = values["source"]
    source = Source(**{**given, "path": Path(given["path"]), "input": InputSpec.from_dict(given["input"])})
    try:
        print(json.dumps(measure(values["engine"], source, values["batch"])))  # noqa: T201
    except RctkError as error:
        sys.exit(str(error))


def reason(code: int, stderr: str) -> str:
    """Return the last line that a failed process wrote, or what ended it."""
    if code < 0:
        hint = " (out of memory?)" if -code == signal.SIGKILL else ""
        return f"its process was ended by {signal.Signals(-code).name}{hint}"
    lines = [line for line in stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"its process ended with code {code}"


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Make a relative ``PYTHONPATH`` mean the same in another folder."""
    parts = [os.path.abspath(part) for part in environ.get("PYTHONPATH", "").split(os.pathsep) if part]  # noqa: PTH100
    return {**environ, **({"PYTHONPATH": os.pathsep.join(parts)} if parts else {})}
