"""Peak memory of one engine, in a process of its own.

As a program (``python -m rctk.measure.memory REQUEST``) this module is that process: it loads the engine, runs it
and prints JSON.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

import rctk
from rctk.machine import parse_meminfo
from rctk_export.engine import Source
from rctk_export.engines import ENGINES
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import EngineError, RctkError

STATUS = Path("/proc/self/status")
CALLS = 10
"""Memory is at its peak after a few batches."""
SECONDS = 600.0


class Memory(NamedTuple):
    """Resident memory of a process that ran one engine.

    Attributes:
        peak_rss_bytes: Peak of the whole process, interpreter and runtime included (``VmHWM``).
        engine_rss_bytes: How far the peak lies above what the process held with the runtime imported and the images
            made, before it loaded the model. Where the kernel cannot forget the peak of the imports, an upper bound.
    """

    peak_rss_bytes: int
    engine_rss_bytes: int


def engine_memory(engine: str, source: Source, *, batch: int, timeout_s: float = SECONDS) -> Memory:
    """Measure an engine in a new process, which gets this one's environment and nothing else.

    Args:
        engine: Member of the engine table with its settings, such as ``onnxruntime:threads=1``.
        source: The model file.
        batch: Images per call.
        timeout_s: The process is ended after so many seconds.

    Raises:
        EngineError: One line, where the process failed, was killed or took too long.
    """
    given = {**asdict(source), "path": str(source.path.resolve())}
    request = json.dumps({"engine": engine, "source": given, "batch": batch})
    command = [sys.executable, "-m", "rctk.measure.memory", request]
    try:
        done = subprocess.run(  # noqa: S603  # this interpreter and this module
            command,
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
        raise EngineError(
            f"measuring the memory of {engine} took more than {timeout_s:g} s; give a smaller batch"
        ) from error
    if done.returncode != 0:
        raise EngineError(f"measuring the memory of {engine} failed: {_reason(done.returncode, done.stderr)}")
    return Memory(**json.loads(done.stdout.splitlines()[-1]))


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Make a relative ``PYTHONPATH`` mean the same in another folder."""
    parts = [os.path.abspath(part) for part in environ.get("PYTHONPATH", "").split(os.pathsep) if part]  # noqa: PTH100
    return {**environ, **({"PYTHONPATH": os.pathsep.join(parts)} if parts else {})}


def _reason(code: int, stderr: str) -> str:
    if code < 0:
        hint = " (out of memory?)" if -code == signal.SIGKILL else ""
        return f"its process was ended by {signal.Signals(-code).name}{hint}"
    lines = [line for line in stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"its process ended with code {code}"


def measure_here(engine: str, source: Source, batch: int) -> Memory:
    """Load and run an engine in this very process and return its memory; meaningful once per process."""
    if not STATUS.exists():
        raise EngineError("peak memory is read from /proc, which this system has not; bench with memory=false")
    settings = ENGINES.build(engine)  # imports the runtime
    images = np.random.default_rng(0).random((batch, *source.input.shape), dtype=np.float32)
    gc.collect()
    _forget_peak()
    before = parse_meminfo(STATUS.read_text())["VmRSS"]
    with settings.open(source) as opened:
        for _ in range(CALLS):
            opened.predict(images)
        peak = parse_meminfo(STATUS.read_text())["VmHWM"]
    return Memory(peak, max(0, peak - before))


def _forget_peak() -> None:
    with contextlib.suppress(OSError):  # not every container may
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): sets VmHWM to the present VmRSS


def main(request: str) -> None:
    """Answer one request of :func:`engine_memory`."""
    values = json.loads(request)
    source = values["source"]
    given = {**source, "path": Path(source["path"]), "input": InputSpec.from_dict(source["input"])}
    print(json.dumps(measure_here(values["engine"], Source(**given), values["batch"])._asdict()))  # noqa: T201


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except RctkError as error:
        sys.exit(str(error))
