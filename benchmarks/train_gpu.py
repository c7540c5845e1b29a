"""Adversarial training on a CUDA GPU: time of a step, and its share of the rate at which the card multiplies matrices.

    python benchmarks/train_gpu.py [--net resnet18] [--batch 256] [--epochs 3] [--attack-steps 10] [--data SET:train]
    python benchmarks/train_gpu.py --devices 2          # ddp shares every batch between two cards
    python benchmarks/train_gpu.py --accelerator cpu --net resnet20 --batch 16 --images 128 --attack-steps 1

The last line only tries the script out. Each strategy (`auto`, `ddp`) is a process of its own that runs PGD-AT in bf16
with `rctk.train.train`, on drawn images of CIFAR's shape or on real ones. A step is timed from one report of progress
to the next, which comes behind the loss that the loop reads back from the device; the first half of the first epoch
warms up. The operations of a step are counted with torch's own table of them. The matrix rate is measured here, as the
best of several products of square matrices, or given as a data sheet's dense figure with --tflops. Without a GPU the
benchmark refuses.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from rctk.cli.console import table
from rctk.data.read import read_split
from rctk.data.split import Split
from rctk.models import build_architecture
from rctk.progress import Silent
from rctk.train import TrainSettings, build_objective, draw_weights, train
from rctk.train.hardware import Hardware
from rctk.train.normalised import Normalised
from rctk.train.one_step import OneStep
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import OptionError, RctkError

SPEC = InputSpec(channels=3, height=32, width=32, mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26))
STRATEGIES = ("auto", "ddp")
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "32": torch.float32}
SIDE = {"cuda": 8192, "cpu": 1024}
COUNTED = 4
"""Images on which operations are counted; every image costs the same."""


class Clock(Silent):
    """Keeps the time of every report of progress."""

    def __init__(self) -> None:
        super().__init__()
        self.at_s: list[float] = []

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:  # type: ignore[override]
        """See :class:`rctk.progress.Progress`."""
        del name, total
        yield lambda _images: self.at_s.append(time.perf_counter())


class Counter(TorchDispatchMode):
    """Adds up the operations of every convolution and product; FlopCounterMode itself fails on autograd.grad."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See torch."""
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)  # noqa: SLF001  # as FlopCounterMode does
        self.total += count(*args, **(kwargs or {}), out_val=out) if count else 0
        return out


def matrix_rate(device: torch.device, precision: str, repeats: int = 20) -> float:
    """Return operations a second in the product of two square matrices, the best of ``repeats``."""
    side = SIDE[device.type]
    left, right = torch.ones(2, side, side, dtype=TYPES[precision], device=device)
    best = float("inf")
    for _ in range(repeats):
        wait(device)
        start = time.perf_counter()
        torch.mm(left, right)
        wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def wait(device: torch.device) -> None:
    """Let the device finish."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def operations(net: str, objective: str) -> float:
    """Return the multiplications and additions of one training step for one image, counted by torch."""
    generator = torch.Generator().manual_seed(0)
    module = build_architecture(net, classes=10, input=SPEC)
    draw_weights(module, generator)
    step = OneStep(Normalised(module, SPEC), build_objective(objective)).train()
    images = torch.rand(COUNTED, *SPEC.shape, generator=generator)
    with Counter() as counter:
        step(images, torch.arange(COUNTED)).backward()
    return counter.total / COUNTED


def drawn(count: int) -> Split:
    """Return images of ten classes that a network can tell apart: a pattern for each, and noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, count)
    patterns, noise = rng.random((10, *SPEC.shape)), rng.random((count, *SPEC.shape))
    images = (0.3 * patterns[labels] + 0.7 * noise).astype(np.float32)
    return Split(name="drawn", images=images, labels=labels)


def child(options: argparse.Namespace) -> None:
    """Train with one strategy and print JSON; with several devices the first process prints."""
    split = read_split(options.data, samples=options.images) if options.data else drawn(options.images)
    held = np.arange(0, len(split), 10)
    settings = TrainSettings(
        objective=build_objective(f"pgd-at:steps={options.attack_steps}"),
        epochs=options.epochs,
        batch_size=options.batch,
        augment="crop+flip",
        accelerator=options.accelerator,
        devices=options.devices,
        strategy=options.child,
        precision=options.precision,
    )
    module = build_architecture(options.net, classes=10, input=SPEC)
    draw_weights(module, torch.Generator().manual_seed(0))
    clock, ends = Clock(), list[int]()

    def note(*_: object) -> None:
        ends.append(len(clock.at_s))

    taken = split.take(np.setdiff1d(np.arange(len(split)), held))
    history = train(module, taken, split.take(held), settings, input=SPEC, progress=note, bars=clock)
    if history.rank:
        return
    gaps = np.diff(clock.at_s)
    starts = [0, *ends[:-1]]
    kept = np.ones(len(gaps), dtype=bool)
    kept[[i - 1 for i in starts if i]] = False  # validation lies there
    kept[: ends[0] // 2] = False
    steps_s = gaps[kept] if kept.any() else gaps
    peak = torch.cuda.max_memory_allocated() / 2**30 if options.accelerator == "cuda" else float("nan")
    losses = [round(epoch.loss, 3) for epoch in history.epochs]
    found = {"median_s": float(np.median(steps_s)), "p95_s": float(np.percentile(steps_s, 95)), "steps": len(steps_s)}
    print(json.dumps({**found, "losses": losses, "peak_gib": peak}))


def measured(options: argparse.Namespace, strategy: str) -> dict[str, object]:
    """Run one strategy in a process of its own."""
    flags = {
        name: value for name, value in vars(options).items() if value is not None and name not in {"child", "tflops"}
    }
    command = [sys.executable, __file__, "--child", strategy]
    command += [text for name, value in flags.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise OptionError(f"strategy {strategy} failed: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    return dict(json.loads(lines[-1]))


def report(options: argparse.Namespace) -> None:
    """Print the table."""
    Hardware(accelerator=options.accelerator, devices=options.devices, precision=options.precision).resolved()
    device = torch.device(options.accelerator)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "this CPU"
    rate = options.tflops * 1e12 if options.tflops else matrix_rate(device, options.precision)
    each = operations(options.net, f"pgd-at:steps={options.attack_steps}")
    print(
        f"{name}: {rate / 1e12:.2f} TFLOP/s in {options.precision} ({'given' if options.tflops else 'measured'}); "
        f"{options.net}, PGD-AT with {options.attack_steps} steps: {each / 1e9:.2f} GFLOP an image"
    )
    rows = []
    for strategy in STRATEGIES:
        found = measured(options, strategy)
        median = float(str(found["median_s"]))
        share = each * options.batch / median / rate / options.devices
        losses = " ".join(str(loss) for loss in found["losses"])  # type: ignore[attr-defined]
        times = (f"{1e3 * median:.1f}", f"{1e3 * float(str(found['p95_s'])):.1f}", found["steps"])
        rows.append((strategy, options.devices, *times, f"{options.batch / median:.0f}", f"{share:.1%}", losses))
    columns = (
        "strategy",
        "devices",
        "step, ms",
        "p95",
        "steps",
        "images/s",
        "share of the matrix rate",
        "loss by epoch",
    )
    table(f"batch {options.batch}, {options.precision}, {options.data or 'drawn images'}", columns, rows)


def main() -> int:
    """Read the flags, refuse or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="resnet18")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--attack-steps", type=int, default=10)
    parser.add_argument("--images", type=int, default=16384)
    parser.add_argument("--data", help="such as cifar10:train; drawn images by default")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--precision", choices=tuple(TYPES), default="bf16")
    parser.add_argument("--accelerator", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tflops", type=float, help="dense matrix rate of the card, from its data sheet")
    parser.add_argument("--child", choices=STRATEGIES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        (child if options.child else report)(options)
    except RctkError as error:
        print(f"train_gpu: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
