"""Structured pruning: accuracy after fine-tuning, and what it is worth in the int8 engine's time.

    RCTK_MODELS=... RCTK_DATA=... python benchmarks/pruning.py accuracy --folder KEPT [--way blocks] [--epochs 4]
    RCTK_MODELS=... RCTK_DATA=... python benchmarks/pruning.py widths [--rounds 20]
    RCTK_DATA=... python benchmarks/pruning.py speed [--net CHECKPOINT --folder KEPT --epochs 4] [--rounds 20]

`accuracy` prunes the sparsity-trained ResNet-56 of Torch-Pruning's authors to 0.4 of its multiplications or less,
fine-tunes it on 28,000 CIFAR-10 training images with the dense net as teacher, and puts it beside the dense net and the
pruned net that those authors published: top-1 of float and int8 files on the test images, and time of the int8 files in
turns. The recipe is run by `rctk.compress`, which keeps every finished step and epoch in KEPT: a stopped run goes on
with the same command. `--way channels` takes channels of every layer away, `--way blocks` 17 of the 27 blocks.

`widths` prunes the same ResNet-56 in several ways and times the int8 files, untrained, against the dense one: channels
rounded or not, blocks removed or not.

`speed` prunes ResNet-18 to a quarter of its multiplications, channels in multiples of 16 and of 32, and compares its
int8 file with ONNX Runtime on the float32 file of the dense net: batch 1, one thread. Its weights are drawn, so this is
about speed alone; with `--net`, a ResNet-18 that `rctk train` has trained on CIFAR-10, channels in multiples of 32 are
taken from that net, it teaches what is left, and the accuracy stands beside the time.

`--out FOLDER` appends a record. Contenders take turns, round by round, on the same inputs. "cpu ms" is the least
process-CPU time per call over blocks of about 2 ms, which other work on the machine touches least; "median ms" is wall
time.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from architectures import NETS
from int8_peers import File, in_onnxruntime
from interleaved import take_turns
from speed_subjects import calibration_split, module_of

from rctk.checkpoint import LoadedModel, load_model
from rctk.cli.console import Bars, table
from rctk.compress import STEPS
from rctk.compress.apply import apply_recipe
from rctk.compress.recipe import Recipe
from rctk.compress.step import Context, ModuleStep
from rctk.data.read import read_split
from rctk.data.split import Split
from rctk.exporting.export import ExportSettings, quantize
from rctk.machine import machine_facts, versions
from rctk.progress import Silent
from rctk.prune.cost import Cost, cost
from rctk.records import Record
from rctk.statistics import paired_difference
from rctk_export.capture import capture
from rctk_export.input_spec import FloatNCHW, InputSpec
from rctk_export.onnx_files import serialize

REMOVALS = {
    "channels": "prune.depgraph:criterion=l2,normalise=none,ratio=0.6,round_to={round_to},min_channels={round_to}",
    "blocks": "prune.layers:blocks=17",
}
TEACHING = "distill.kd:epochs={epochs},batch_size=128,lr={lr},weight_decay=5e-4,augment=crop+flip"
QUARTER = "prune.depgraph:ratio=0.75,by=macs,scope=local,round_to={round_to},min_channels=16"
CHANNELS = "prune.depgraph:criterion=l2,normalise=none,images=64"
BLOCKS = "prune.layers:blocks=12,images=64"
FROM_DENSE = ("any width", "multiples of 8", "multiples of 16", "12 blocks fewer")
"""The others go on from the one before."""
WAYS = {
    "any width": [f"{CHANNELS},ratio=0.6,round_to=1,min_channels=2"],
    "multiples of 8": [f"{CHANNELS},ratio=0.6,round_to=8"],
    "multiples of 16": [f"{CHANNELS},ratio=0.4,round_to=16,min_channels=16"],
    "12 blocks fewer": [BLOCKS],
    "12 blocks fewer, multiples of 16": [f"{CHANNELS},ratio=0.27,round_to=16,min_channels=16"],
}
VALIDATION, CALIBRATION, BATCH = 2000, 512, 100
GOAL_DROP, GOAL_MACS, GOAL_SPEED = 0.015, 0.4, 14.0


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network with its two files.

    Attributes:
        name: For the table.
        cost: Counted from the module.
        files: ``float`` and ``int8``.
    """

    name: str
    cost: Cost
    files: dict[str, File]


def main() -> None:
    """Run one of the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["accuracy", "widths", "speed"])
    parser.add_argument("--folder", type=Path, help="where finished steps and epochs are kept")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--lr", default="0.002")
    parser.add_argument("--round-to", type=int, default=4)
    parser.add_argument("--way", choices=sorted(REMOVALS), default="channels", help="what accuracy removes")
    parser.add_argument("--net", type=Path, help="trained ResNet-18 for speed")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    values = {"accuracy": accuracy, "widths": widths, "speed": speed}[options.part](options)
    if options.out:
        settings = {key: str(value) for key, value in vars(options).items() if key != "out"}
        about = {"name": f"structured pruning, {options.part}"}
        Record.of("bench", about, settings, values, machine=machine_facts(), versions=versions()).append_to(options.out)


def subject(name: str, module: torch.nn.Module, spec: InputSpec, calibration: Split, folder: Path) -> Subject:
    """Write the float and the int8 `cpu` file of a module."""
    graph = capture(module, spec)
    (made,) = quantize(graph, calibration, ExportSettings(targets=("cpu",)), Silent())
    files = {}
    for kind, model in (("float", graph), ("int8", made.model)):
        path = folder / f"{name.replace(' ', '-')}-{kind}.onnx"
        path.write_bytes(serialize(model))
        files[kind] = File(name=f"{name} {kind}", path=path, target="cpu", int8=kind == "int8")
    return Subject(name=name, cost=cost(module, spec), files=files)


def accuracy(options: argparse.Namespace) -> dict[str, Any]:
    """Prune, fine-tune, compare."""
    folder = Path(os.environ["RCTK_MODELS"])
    dense, published = (net_of(name, folder) for name in ("resnet56-dense", "resnet56-pruned"))
    context = learning(dense.input, options.folder)
    steps = [step.format(**vars(options)) for step in (REMOVALS[options.way], TEACHING)]
    pruned = apply_recipe(dense, Recipe.of(steps), context)
    calibration = context.train.sample(CALIBRATION, 0)
    test = read_split("cifar10:test")
    with tempfile.TemporaryDirectory() as scratch:
        modules = {"dense": dense, "pruned": pruned, "published pruned": published}
        subjects = [
            subject(name, model.module, model.input, calibration, Path(scratch)) for name, model in modules.items()
        ]
        times = timed([each.files["int8"] for each in subjects], dense.input, options.rounds)
        right = {
            each.files[kind].name: correct(each.files[kind], dense.input, test)
            for each in subjects
            for kind in ("float", "int8")
        }
    values = judged(subjects, times, right, len(test))
    drop = paired_difference(right["dense float"], right["pruned float"])
    sys.stdout.write(f"dense minus pruned, float, {len(test)} test images: {drop}\n")
    values["widths"] = [layer.out_channels for layer in pruned.module.modules() if isinstance(layer, torch.nn.Conv2d)]
    sys.stdout.write(f"widths: {values['widths']}\n")
    return values


def learning(spec: InputSpec, folder: Path | None) -> Context:
    """Return 28,000 CIFAR-10 images to learn from, 2,000 to choose by, and where finished work is kept."""
    images = read_split("cifar10:train")
    order = np.random.default_rng(0).permutation(len(images))
    train, validation = images.take(order[VALIDATION:]), images.take(order[:VALIDATION])
    return Context(train=train, validation=validation, input=spec, progress=Bars(), folder=folder)


def judged(
    subjects: list[Subject], times: dict[str, tuple[float, float]], right: dict[str, np.ndarray], count: int
) -> dict[str, Any]:
    """Print cost, accuracy and time of every network, the first of which is dense."""
    rows, values = [], {}
    for each in subjects:
        kept = each.cost.macs / subjects[0].cost.macs
        shares = [right[each.files[kind].name].mean() for kind in ("float", "int8")]
        cpu, median = times[each.files["int8"].name]
        ratio = cpu / times[subjects[0].files["int8"].name][0]
        shown = (f"{share:.1%}" for share in shares)
        numbers = (f"{cpu:.3f}", f"{median:.3f}", f"{ratio:.3f}")
        rows.append((each.name, f"{each.cost.parameters:,}", f"{kept:.3f}", *shown, *numbers))
        values[each.name] = {
            **each.cost.as_dict(),
            "float_accuracy": float(shares[0]),
            "int8_accuracy": float(shares[1]),
            "int8_cpu_ms": cpu,
            "int8_median_ms": median,
        }
    head = ["network", "parameters", "MACs", "float", "int8", "cpu ms", "median ms", "of dense"]
    table(f"top-1 of {count} test images; int8 files in ONNX Runtime, one image, one thread", head, rows)
    return values


def net_of(name: str, folder: Path) -> LoadedModel:
    """Load a published network; the pruned one needs no code, its widths are in its weights."""
    net = NETS[name]
    return load_model(folder / net.file, arch=net.arch, input=net.input)


def correct(file: File, spec: InputSpec, test: Split) -> np.ndarray:
    """Return for every test image whether ONNX Runtime puts it in its class."""
    with in_onnxruntime(file, spec, 1) as call:
        batches = [call(x).argmax(axis=1) == y for x, y in test.batches(BATCH)]
    return np.concatenate(batches)


def timed(files: list[File], spec: InputSpec, rounds: int) -> dict[str, tuple[float, float]]:
    """Return least CPU and median wall milliseconds of one image and one thread for each file, in turns."""
    rng = np.random.default_rng(0)
    inputs: list[FloatNCHW] = [rng.random((1, *spec.shape), dtype=np.float32) for _ in range(8)]
    with ExitStack() as stack:
        calls = [stack.enter_context(in_onnxruntime(file, spec, 1)) for file in files]
        found = take_turns(calls, inputs, rounds)
    return {file.name: (each.cpu_ms, each.wall.median_ms) for file, each in zip(files, found, strict=True)}


def widths(options: argparse.Namespace) -> dict[str, Any]:
    """Time ResNet-56 pruned in several ways."""
    dense, published = (net_of(name, Path(os.environ["RCTK_MODELS"])) for name in ("resnet56-dense", "resnet56-pruned"))
    calibration = read_split("cifar10:train", samples=CALIBRATION)
    context = Context(train=calibration, validation=calibration, input=dense.input, progress=Bars())
    with tempfile.TemporaryDirectory() as scratch:
        subjects = [subject("dense", dense.module, dense.input, calibration, Path(scratch))]
        subjects.append(subject("published pruned", published.module, dense.input, calibration, Path(scratch)))
        module = dense.module
        for name, steps in WAYS.items():
            module = copy.deepcopy(dense.module if name in FROM_DENSE else module)
            for step in steps:
                module = cast("ModuleStep", STEPS.build(step))(module, context)
            subjects.append(subject(name, module, dense.input, calibration, Path(scratch)))
        times = timed([each.files["int8"] for each in subjects], dense.input, options.rounds)
    rows, values = [], {}
    base_cpu, base_median = times["dense int8"]
    for each in subjects:
        cpu, median = times[each.files["int8"].name]
        kept = each.cost.macs / subjects[0].cost.macs
        ratios = (f"{cpu / base_cpu:.3f}", f"{median / base_median:.3f}")
        rows.append((each.name, f"{kept:.3f}", f"{cpu:.3f}", f"{median:.3f}", *ratios))
        values[each.name] = {**each.cost.as_dict(), "int8_cpu_ms": cpu, "int8_median_ms": median}
    columns = ("network", "MACs", "cpu ms", "median ms", "cpu of dense", "median of dense")
    table("ResNet-56, int8 in ONNX Runtime, one image, one thread", columns, rows)
    return values


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Time ResNet-18 at a quarter of its multiplications; with a trained one, judge it too."""
    spec, accuracies = InputSpec(channels=3, height=32, width=32), {}
    with tempfile.TemporaryDirectory() as scratch:
        if options.net:
            subjects, accuracies = taught(options, Path(scratch))
        else:
            subjects = drawn(spec, Path(scratch))
        files = [each.files[kind] for each in subjects for kind in ("float", "int8")]
        times = timed(files, spec, options.rounds)
    base_cpu, base_median = times["dense float"]
    rows, values = [], {}
    for each in subjects:
        for kind in ("float", "int8"):
            cpu, median = times[each.files[kind].name]
            kept = each.cost.macs / subjects[0].cost.macs
            ratios = (f"{base_cpu / cpu:.2f}x", f"{base_median / median:.2f}x")
            name = each.files[kind].name
            right = accuracies.get(name)
            shown = "-" if right is None else f"{right.mean():.1%}"
            rows.append((name, f"{kept:.3f}", f"{cpu:.3f}", f"{median:.3f}", *ratios, shown))
            values[name] = {"macs": each.cost.macs, "cpu_ms": cpu, "median_ms": median, "accuracy": shown}
    columns = ("file", "MACs", "cpu ms", "median ms", "by cpu", "by median", "top-1")
    table("ResNet-18 in ONNX Runtime, one image, one thread; against float32 of the dense net", columns, rows)
    if options.net:
        lost = paired_difference(accuracies["dense float"], accuracies["quarter int8"])
        sys.stdout.write(f"dense float minus quarter int8, {len(accuracies['dense float'])} test images: {lost}\n")
    best = max(base_cpu / times[each.files["int8"].name][0] for each in subjects[1:])
    sys.stdout.write(f"best {best:.1f}x of float32, goal {GOAL_SPEED:g}x\n")
    return values


def drawn(spec: InputSpec, scratch: Path) -> list[Subject]:
    """Return ResNet-18 with drawn weights, dense and at a quarter in several multiples."""
    calibration = calibration_split(64)
    module, _ = module_of("resnet18", calibration.images[:64])
    context = Context(train=calibration, validation=calibration, input=spec)
    subjects = [subject("dense", copy.deepcopy(module), spec, calibration, scratch)]
    for round_to in (1, 16, 32):
        step = cast("ModuleStep", STEPS.build(QUARTER.format(round_to=round_to)))
        subjects.append(
            subject(f"multiples of {round_to}", step(copy.deepcopy(module), context), spec, calibration, scratch)
        )
    return subjects


def taught(options: argparse.Namespace, scratch: Path) -> tuple[list[Subject], dict[str, np.ndarray]]:
    """Return a trained net, dense and at a quarter behind a short training, and what their files get right."""
    dense = load_model(options.net)
    context = learning(dense.input, options.folder)
    steps = [QUARTER.format(round_to=32), TEACHING.format(epochs=options.epochs, lr=options.lr)]
    small = apply_recipe(dense, Recipe.of(steps), context)
    calibration, test = context.train.sample(CALIBRATION, 0), read_split("cifar10:test")
    subjects = [
        subject(name, model.module, model.input, calibration, scratch)
        for name, model in (("dense", dense), ("quarter", small))
    ]
    files = [each.files[kind] for each in subjects for kind in ("float", "int8")]
    return subjects, {file.name: correct(file, dense.input, test) for file in files}


if __name__ == "__main__":
    main()
