"""Speed of our int8 files against float32 and against the int8 files of other tools, in one interleaved run.

    python benchmarks/export_int8.py [--models resnet20,resnet18] [--batches 1,32] [--threads 1,2] [--out runs]
    python benchmarks/export_int8.py --quick

Contenders: ONNX Runtime float32 (the baseline), our `cpu` file in ONNX Runtime and in OpenVINO, our `openvino` file in
OpenVINO, three forms of ONNX Runtime's `quantize_static`, OpenVINO float32, and OpenVINO with two presets of NNCF. All
start from the float file of our bundle, which is at least as fast for every one of them as torch's plain export. Files
are calibrated on the same images. "agrees" counts test images that get the class of the float file, and "correct"
those that get the right one.

Contenders take turns, round by round, on the same inputs, with explicit threads and idle threads asleep. "cpu ms" is
the least process-CPU time per call over all blocks of about 2 ms, which other work on the machine touches least;
"least" and "median" are wall times of single calls. Verdicts go by CPU time with one thread. CPU time adds up all
threads, so with more of them verdicts go by the least wall time.

ResNet-20 and ResNet-56 use the published weights where RCTK_MODELS names their folder; other weights are drawn, with
BatchNorm statistics of a pass over the calibration images, and say something about speed only. Calibration images are
CIFAR-10's where RCTK_DATA is set, and random otherwise. Peers that are not installed are left out by name.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from architectures import IMAGENET
from int8_peers import (
    File,
    floats_in_onnxruntime,
    floats_in_openvino,
    in_onnxruntime,
    in_openvino,
    missing,
    nncf_files,
    onnxruntime_files,
)
from interleaved import take_turns
from speed_subjects import calibration_split, check_split, module_of

from rctk.cli.console import Bars, size, table
from rctk.data.split import Split
from rctk.exporting.export import ExportSettings, quantize
from rctk.machine import installed, load_average, machine_facts, versions
from rctk.measure.latency import Latency
from rctk.progress import Progress
from rctk.records import Record
from rctk_export.capture import capture
from rctk_export.onnx_files import serialize

OPENVINO = "openvino"
RUNTIMES = {"ONNX Runtime": "cpu", "OpenVINO": OPENVINO}
"""Which of our files is made for which runtime."""
MODELS = ("resnet20", "resnet56", "resnet18", "mobilenetv2")
MARGIN = 0.03
"""How far we may be behind the best int8 file of a peer on the same runtime, as a share of its time."""
GOAL = ("resnet18", 1, 1, 4.5)
"""Network, batch, threads, and how many times faster than float32 it should be there in ONNX Runtime."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A file in a runtime."""

    file: File
    runtime: str
    float_layers: int
    agreement: float
    accuracy: float

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.file.name} in {self.runtime}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one contender took at one batch size and number of threads."""

    contender: Contender
    model: str
    batch: int
    threads: int
    cpu_ms: float
    wall: Latency

    @property
    def steady_ms(self) -> float:
        """The time that other work on the machine disturbs least."""
        return self.cpu_ms if self.threads == 1 else self.wall.min_ms


def make_files(name: str, split: Split, samples: int, folder: Path, progress: Progress) -> tuple[list[File], str]:
    """Write the float file, ours, and those of all installed peers; the first is the float file."""
    module, weights = module_of(name, split.images[: min(samples, 64)])
    model = capture(module, IMAGENET)
    calibration = split.take(np.arange(samples))
    files = [File(name="float32", path=folder / "float.onnx", int8=False)]
    files[0].path.write_bytes(serialize(model))
    for made in quantize(model, calibration, ExportSettings(targets=("cpu", OPENVINO)), progress):
        files.append(File(name=f"rctk {made.target}", path=folder / f"{made.target}.onnx", target=made.target))
        files[-1].path.write_bytes(serialize(made.model))
    files += onnxruntime_files(onnx.load(files[0].path), calibration.images, folder)
    if not {OPENVINO, "nncf"} & set(missing()):
        files += nncf_files(files[0].path, calibration.images, folder)
    return files, weights


def line_up(files: Sequence[File], check: Split) -> list[Contender]:
    """Pair files with the runtimes that read them, count their float layers and look at their classes."""
    places = [(file, "ONNX Runtime") for file in files if file.path.suffix == ".onnx" and file.target != OPENVINO]
    if OPENVINO not in missing():
        places += [(file, "OpenVINO") for file in files if "QOperator" not in file.name and "tensor" not in file.name]
    found, expected = [], None
    for file, runtime in places:
        with opened(file, runtime, threads=1, batch=len(check)) as call:
            classes = np.asarray(call(check.images)).argmax(axis=1)
        expected = classes if expected is None else expected
        floats = floats_in_onnxruntime(file) if runtime == "ONNX Runtime" else floats_in_openvino(file)
        shares = {"agreement": float((classes == expected).mean()), "accuracy": float((classes == check.labels).mean())}
        found.append(Contender(file=file, runtime=runtime, float_layers=floats, **shares))
    return found


def opened(file: File, runtime: str, *, threads: int, batch: int) -> Any:
    """Return a context manager that yields the call to time."""
    if runtime == "ONNX Runtime":
        return in_onnxruntime(file, IMAGENET, threads)
    return in_openvino(file, IMAGENET, threads, batch)


def measure(model: str, contenders: Sequence[Contender], batch: int, threads: int, rounds: int) -> list[Row]:
    """Time all contenders in turns."""
    rng = np.random.default_rng(0)
    inputs = [rng.random((batch, *IMAGENET.shape), dtype=np.float32) for _ in range(8)]
    with ExitStack() as stack:
        calls = [stack.enter_context(opened(c.file, c.runtime, threads=threads, batch=batch)) for c in contenders]
        timed = take_turns(calls, inputs, rounds)
    return [
        Row(contender=c, model=model, batch=batch, threads=threads, cpu_ms=found.cpu_ms, wall=found.wall)
        for c, found in zip(contenders, timed, strict=True)
    ]


def show(rows: Sequence[Row], weights: str) -> None:
    """Print one table and how far our file is from the best of the peers in either runtime."""
    first = rows[0]
    lines = [
        (
            row.contender.name,
            f"{row.cpu_ms:.4f}",
            f"{first.cpu_ms / row.cpu_ms:.2f}",
            f"{row.wall.min_ms:.4f}",
            f"{first.wall.min_ms / row.wall.min_ms:.2f}",
            f"{row.wall.median_ms:.4f}",
            f"{first.wall.median_ms / row.wall.median_ms:.2f}",
            row.contender.float_layers,
            f"{row.contender.agreement:.1%}",
            f"{row.contender.accuracy:.1%}" if weights == "published" else "-",
            size(row.contender.file.size_bytes),
        )
        for row in rows
    ]
    title = f"{first.model} ({weights} weights), batch {first.batch}, {first.threads} thread(s)"
    title += f", load {load_average()[0]:.1f}"
    times = ("cpu ms", "x", "least ms", "x", "median ms", "x")
    table(title, ("contender", *times, "float layers", "agrees", "correct", "file"), lines)
    for runtime in dict.fromkeys(row.contender.runtime for row in rows):
        print(f"  in {runtime}: {standing(rows, runtime)}", flush=True)


def standing(rows: Sequence[Row], runtime: str) -> str:
    """Say how the file that we make for a runtime compares with the best int8 file of a peer there."""
    here = [row for row in rows if row.contender.runtime == runtime and row.contender.file.int8]
    ours = next(row for row in here if row.contender.file.target == RUNTIMES[runtime])
    peers = [row for row in here if not row.contender.file.target]
    if not peers:
        return "no int8 file of a peer"
    best = min(peers, key=lambda row: row.steady_ms)
    behind = ours.steady_ms / best.steady_ms - 1
    verdict = "holds" if behind <= MARGIN else "MISSED"
    word, clock = "behind" if behind > 0 else "ahead of", "CPU" if ours.threads == 1 else "least wall"
    return f"{abs(behind):.1%} {word} {best.contender.file.name} by {clock} time (goal of {MARGIN:.0%} {verdict})"


def append(row: Row, first: Row, settings: dict[str, Any], folder: Path) -> None:
    """Write one record."""
    file = row.contender.file
    subject = {
        "name": row.model,
        "sha256": hashlib.sha256(file.path.read_bytes()).hexdigest(),
        "role": "int8" if file.int8 else "float",
        "target": file.target or (file.name if file.int8 else ""),
        "engine": row.contender.runtime,
    }
    values = {
        **asdict(row.wall),
        "cpu_ms": row.cpu_ms,
        "images_per_s": row.batch / row.wall.mean_ms * 1000,
        "file_bytes": file.size_bytes,
        "speedup": first.wall.median_ms / row.wall.median_ms,
        "cpu_speedup": first.cpu_ms / row.cpu_ms,
        "float_layers": row.contender.float_layers,
        "agreement": row.contender.agreement,
        "accuracy": row.contender.accuracy,
    }
    settings = {**settings, "batch": row.batch, "threads": row.threads}
    found = {**versions(), "nncf": installed(["nncf"])}
    Record.of("bench", subject, settings, values, machine=machine_facts(), versions=found).append_to(folder)


def summary(rows: Sequence[Row]) -> None:
    """Print the goals and whether they hold."""
    for runtime, target in RUNTIMES.items():
        ours = [row for row in rows if (row.contender.file.target, row.contender.runtime) == (target, runtime)]
        left = {row.model: row.contender.float_layers for row in ours}
        print(f"layers of our {target} file left in float by {runtime}: {left or 'nothing measured'}")
    ours = [row for row in rows if row.contender.file.target and row.contender.runtime == "ONNX Runtime"]
    name, batch, threads, goal = GOAL
    for row in ours:
        if (row.model, row.batch, row.threads) == (name, batch, threads):
            first = next(r for r in rows if (r.model, r.batch, r.threads) == (name, batch, threads))
            print(
                f"{name}, batch {batch}, {threads} thread: {first.cpu_ms / row.cpu_ms:.2f}x float32 by CPU time, "
                f"{first.wall.median_ms / row.wall.median_ms:.2f}x by wall time (goal {goal})"
            )


def run(options: argparse.Namespace, rows: list[Row]) -> None:
    """Measure everything that was asked for; ``rows`` grows as results come in."""
    progress = Bars()
    split, check = calibration_split(options.calibration), check_split()
    for name in options.models.split(","):
        with tempfile.TemporaryDirectory(prefix="rctk-") as scratch:
            with progress.stage(name, None):
                files, weights = make_files(name, split, options.calibration, Path(scratch), progress)
                contenders = line_up(files, check)
            for threads in map(int, options.threads.split(",")):
                for batch in map(int, options.batches.split(",")):
                    with progress.stage(f"{name} b{batch} t{threads}", None):
                        found = measure(name, contenders, batch, threads, options.rounds)
                    rows += found
                    show(found, weights)
                    if options.out is not None:
                        settings = {"rounds": options.rounds, "calibration": options.calibration, "weights": weights}
                        for row in found:
                            append(row, found[0], {**settings, "data": split.name, "spinning": False}, options.out)


def main() -> int:
    """Read the flags, measure, and print what holds; Ctrl-C ends early with what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--batches", default="1,32")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--calibration", type=int, default=128, help="images")
    parser.add_argument("--out", type=Path, help="folder that records are appended to")
    parser.add_argument("--quick", action="store_true", help="one model, batch 1, one thread, 3 rounds: does it run?")
    options = parser.parse_args()
    if options.quick:
        options.models, options.batches, options.threads, options.rounds = "resnet20", "1", "1", 3
    torch.set_num_threads(1)
    for package in missing():
        print(f"left out: {package} is not installed (pip install {package})")
    rows: list[Row] = []
    try:
        run(options, rows)
    except KeyboardInterrupt:
        print("interrupted; what was measured until now:", file=sys.stderr)
        summary(rows)
        return 130
    summary(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
