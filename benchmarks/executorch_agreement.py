"""ExecuTorch programs of our int8 files: layers in int8, agreement with the twin, accuracy, time beside ONNX Runtime.

RCTK_DATA=... RCTK_MODELS=... python benchmarks/executorch_agreement.py [NET ...] [--samples 1000] [--attacked 200]
    [--calls 400]

Each network is exported with default settings for `cpu`, lowered to XNNPACK with batch 1, and run on test images, clean
and from PGD-10 against the twin. Times are medians of single images on one thread; the two engines take turns.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from twin_agreement import agreement, attacked_images, bundle_of, data_of, logits

from rctk.cli.console import table
from rctk.data import read_split
from rctk_export.engine import Engine, Source
from rctk_export.engines import ENGINES
from rctk_export.engines.executorch_build import build_program
from rctk_export.engines.executorch_program import program_path
from rctk_export.input_spec import FloatNCHW

DEFAULT = ("resnet20", "resnet-4b", "cnn-a", "resnet8", "mnist-clean", "pgd-madry")
ENGINE_NAMES = ("executorch", "onnxruntime")
WARMUP = 50


def median_ms(source: Source, image: FloatNCHW, calls: int) -> list[float]:
    """Return the median time of one image in each engine; they take turns."""
    with ENGINES.build(ENGINE_NAMES[0]).open(source) as first, ENGINES.build(ENGINE_NAMES[1]).open(source) as second:
        times = np.array([turn((first, second), image) for _ in range(WARMUP + calls)][WARMUP:])
    return [float(value) for value in np.median(times, axis=0) / 1e6]


def turn(engines: Sequence[Engine], image: FloatNCHW) -> list[int]:
    """Return the nanoseconds of one call of each engine."""
    found = []
    for engine in engines:
        start = time.perf_counter_ns()
        engine.predict(image)
        found.append(time.perf_counter_ns() - start)
    return found


def row(name: str, folder: Path, options: argparse.Namespace) -> tuple[str, ...]:
    """Measure one network."""
    bundle = bundle_of(name, folder, ("cpu",))
    source = bundle.source("int8", "cpu")
    record = build_program(source, program_path(source.path))
    split = read_split(data_of(name), samples=options.samples, input=bundle.input)
    cells = [name, f"{sum(layer.int8 for layer in record.layers)} of {len(record.layers)}"]
    twin = logits(source, split.images, "twin")
    found = [logits(source, split.images, engine) for engine in ENGINE_NAMES]
    cells += [agreement(twin, each) for each in found]
    cells += [f"{(each.argmax(1) == split.labels).mean():.1%}" for each in (twin, found[0])]
    hostile = attacked_images(name, source, split.take(np.arange(min(options.attacked, len(split)))))
    cells += [agreement(logits(source, hostile, "twin"), logits(source, hostile, "executorch"))]
    cells += [f"{value:.3f}" for value in median_ms(source, split.images[:1], options.calls)]
    print(f"  {cells}", file=sys.stderr)
    return tuple(cells)


def main() -> None:
    """Measure the named networks and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", default=DEFAULT)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--attacked", type=int, default=200)
    parser.add_argument("--calls", type=int, default=400)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = [row(name, Path(folder), options) for name in options.nets]
    columns = ("net", "int8 layers", "ExecuTorch = twin", "ONNX Runtime = twin", "accuracy, twin", "ExecuTorch")
    columns += (f"= twin, PGD ({options.attacked})", "ms, ExecuTorch", "ms, ONNX Runtime")
    table(f"ExecuTorch with XNNPACK, {options.samples} images", columns, found)


if __name__ == "__main__":
    main()
