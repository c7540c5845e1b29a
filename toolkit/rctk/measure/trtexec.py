"""TensorRT's own ``trtexec``, with flags that mean the same in TensorRT 10 and 11, read into the same figures.

In TensorRT 11 the defaults changed: CUDA graph and spin-wait became on, copies of inputs and outputs became left out.
Here all three are always stated. ``trtexec`` enqueues one batch ahead, so its throughput exceeds what a product that
waits for each answer sees; the latency of a query is copy in + compute + copy out, without the host.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rctk.measure.latency import Latency
from rctk.measure.ratio import median_ratio
from rctk.measure.settings import BenchSettings
from rctk_export.engine import Source
from rctk_kernels.errors import EngineError, EngineUnavailableError

JETPACK = Path("/usr/src/tensorrt/bin/trtexec")
INPUT = "images"
BUILD_SECONDS = 3600.0
TURN_SECONDS = 1
WARM_UP_MS = 200
MOST_ROUNDS = 5
"""A turn loads the plan anew, which takes seconds."""
HOST_BOUND, UNSTABLE = 0.8, 0.025
"""Enqueue median over compute median, and variation of compute, above which trtexec itself warns."""


class Printed(NamedTuple):
    """What ``trtexec`` printed: version such as ``10.3.0``, queries per second, and the warnings of its summary."""

    version: str
    queries_per_s: float | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One run: milliseconds of each query, ``(N,)``."""

    latency_ms: npt.NDArray[np.float64]
    compute_ms: npt.NDArray[np.float64]
    enqueue_ms: npt.NDArray[np.float64]
    printed: Printed = field(default=Printed("", None, ()))


def find_trtexec() -> str:
    """Return the program on the path, or where JetPack puts it."""
    found = shutil.which("trtexec") or (str(JETPACK) if JETPACK.is_file() else None)
    if found is None:
        raise EngineUnavailableError(
            f"there is no trtexec on the PATH nor at {JETPACK}; install TensorRT's tools (JetPack: "
            "`sudo apt install libnvinfer-bin`) and add their folder to PATH, or bench with --engine tensorrt"
        )
    return found


def bench_trtexec(program: str, sources: Sequence[Source], settings: BenchSettings) -> list[dict[str, Any]]:
    """Build and time files in turns, and return for each the fields that :func:`rctk.measure.bench.bench` has.

    What a process of another maker cannot tell is ``None``: memory, CPU time. ``trtexec_queries_per_s`` is its own
    throughput, one batch ahead; ``images_per_s`` is the batch over the mean latency, as for every engine.
    """
    copies = ["--includeDataTransfers"] if "--includeDataTransfers" in _run([program, "--help"], "help") else []
    rounds = min(settings.rounds, MOST_ROUNDS, settings.calls)
    with tempfile.TemporaryDirectory(prefix="rctk-") as folder:
        plans = [Path(folder) / f"{i}.plan" for i in range(len(sources))]
        for source, plan in zip(sources, plans, strict=True):
            _run([program, *build_flags(source, plan, settings)], source.path.name)
        turns: list[list[Turn]] = [[] for _ in sources]
        for _ in range(rounds):
            for source, plan, done in zip(sources, plans, turns, strict=True):
                times = plan.with_suffix(".json")
                flags = [*run_flags(source, plan, times, settings, -(-settings.calls // rounds)), *copies]
                text = _run([program, *flags], source.path.name)
                done.append(read_turn(_exported(times), parse_output(text)))
    return [_values(source, turns[0], own, settings) for source, own in zip(sources, turns, strict=True)]


def build_flags(source: Source, plan: Path, settings: BenchSettings) -> list[str]:
    """Return the flags of a build: types as in the file, and a profile for exactly the batch that is timed."""
    shape = _shape(source, settings.batch)
    shapes = [f"--{kind}Shapes={INPUT}:{shape}" for kind in ("min", "opt", "max")]
    return [f"--onnx={source.path}", f"--saveEngine={plan}", "--stronglyTyped", "--skipInference", *shapes]


def run_flags(source: Source, plan: Path, times: Path, settings: BenchSettings, calls: int) -> list[str]:
    """Return the flags of a run, but for the copies: TensorRT 10 includes them, 11 wants ``--includeDataTransfers``."""
    idle = [f"--idleTime={settings.gap_ms:g}"] if settings.gap_ms else []
    return [
        f"--loadEngine={plan}",
        f"--shapes={INPUT}:{_shape(source, settings.batch)}",
        *("--useCudaGraph", "--useSpinWait", "--separateProfileRun"),  # on in 11, and no-ops there
        f"--infStreams={settings.streams}",
        f"--warmUp={WARM_UP_MS}",
        f"--duration={TURN_SECONDS}",
        f"--iterations={calls}",
        "--avgRuns=1",
        "--percentile=90,95,99",
        f"--exportTimes={times}",
        *idle,
    ]


def _shape(source: Source, batch: int) -> str:
    return "x".join(str(size) for size in (batch, *source.input.shape))


def parse_output(text: str) -> Printed:
    r"""Read the console text of any version; what is missing stays empty.

    Example:
        >>> parse_output("&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec\n[I] Throughput: 812.5 qps")
        Printed(version='10.3.0', queries_per_s=812.5, warnings=())
    """
    version = re.search(r"\[TensorRT v(\d{4,6})\]", text)
    speed = re.search(r"Throughput:\s*(\d+(?:\.\d+)?)\s*qps", text)
    lines = re.findall(r"^(?:\[[^\]]*\] )*\[W\]\s*(?:\*\s*)?(.+?)\s*$", text, flags=re.MULTILINE)
    return Printed(
        version=_dotted(int(version[1])) if version else "",
        queries_per_s=float(speed[1]) if speed else None,
        warnings=tuple(dict.fromkeys(lines)),
    )


def _dotted(number: int) -> str:
    """Split ``100300`` (from 10.0 on) or ``8601``."""
    big, small = (10000, 100) if number >= 100000 else (1000, 100)
    return f"{number // big}.{number % big // small}.{number % small}"


def read_turn(text: str, printed: Printed) -> Turn:
    """Read the file of ``--exportTimes``: one object per query, its warm-up already left out."""
    try:
        rows = json.loads(text)
        columns = {key: np.array([float(row[key]) for row in rows]) for key in ("latencyMs", "computeMs")}
        enqueue = np.array([float(row["endEnqMs"]) - float(row["startEnqMs"]) for row in rows])
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"trtexec wrote times that cannot be read ({type(error).__name__}: {error}); this rctk knows TensorRT 10 "
            "and 11"
        ) from error
    if not len(enqueue) or not all(np.isfinite(column).all() for column in columns.values()):
        raise EngineError("trtexec wrote no times; give more --calls")
    return Turn(latency_ms=columns["latencyMs"], compute_ms=columns["computeMs"], enqueue_ms=enqueue, printed=printed)


def _exported(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise EngineError(f"trtexec left no times ({error.strerror}); run it by hand to see why") from error


def _values(source: Source, first: Sequence[Turn], own: Sequence[Turn], settings: BenchSettings) -> dict[str, Any]:
    timed = Latency.of(np.concatenate([turn.latency_ms for turn in own]) * 1e6)
    compute = Latency.of(np.concatenate([turn.compute_ms for turn in own]) * 1e6)
    ratio = median_ratio([t.latency_ms for t in first], [t.latency_ms for t in own], seed=settings.seed)
    speeds = [turn.printed.queries_per_s for turn in own if turn.printed.queries_per_s is not None]
    enqueue = float(np.median(np.concatenate([turn.enqueue_ms for turn in own])))
    return {
        **vars(timed),
        "times_ms": list(timed.times_ms),
        "images_per_s": settings.batch / timed.mean_ms * 1000,
        "file_bytes": source.path.stat().st_size,
        "peak_rss_bytes": None,
        "engine_rss_bytes": None,
        "speedup": ratio.value,
        "speedup_low": ratio.low,
        "speedup_high": ratio.high,
        "cpu_speedup": None,
        "device_median_ms": compute.median_ms,
        "device_p90_ms": compute.p90_ms,
        "device_p99_ms": compute.p99_ms,
        "enqueue_median_ms": enqueue,
        "trtexec_queries_per_s": float(np.median(speeds)) if speeds else None,
        "trtexec_version": own[0].printed.version,
        "trtexec_warnings": list(dict.fromkeys(text for turn in own for text in turn.printed.warnings)),
        "host_bound": enqueue > HOST_BOUND * compute.median_ms,
        "unstable": compute.variation > UNSTABLE,
    }


def _run(command: list[str], what: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603  # the program that the user has on the path, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=BUILD_SECONDS,
            check=False,
        )
    except OSError as error:
        raise EngineUnavailableError(f"cannot start {command[0]}: {error.strerror}; check the file on PATH") from error
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"trtexec took more than {BUILD_SECONDS:g} s for {what}; give a smaller batch") from error
    text = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise EngineError(f"trtexec failed on {what}: {failure(text, done.returncode)}")
    return text


def failure(text: str, code: int) -> str:
    r"""Return the first line that trtexec calls an error, for the later ones follow from it.

    Example:
        >>> failure("[11/05/2025-10:00:00] [E] Error[1]: out of memory\n&&&& FAILED TensorRT.trtexec", 1)
        'Error[1]: out of memory'
    """
    errors = re.findall(r"^(?:\[[^\]]*\] )*\[E\]\s*(.+?)\s*$", text, flags=re.MULTILINE)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return str(errors[0]) if errors else lines[-1] if lines else f"exit code {code}"
