"""What training on few bits keeps of a published network's accuracy, and whether the file is what was trained.

    RCTK_MODELS=... RCTK_DATA=... python benchmarks/qat_accuracy.py [--nets mnist,resnet20] [--images 5000]
    python benchmarks/qat_accuracy.py --nets resnet20 --widths 4/4,2/2 --epochs 4 --settings "lr=0.02,bn=folded"

Every width starts from the float network; ``--method`` trains ``--epochs`` on the first ``--images`` of a seeded draw,
a tenth of which chooses the epoch. ONNX Runtime classifies the test images with each file; a difference is in points,
with Tango's 95 % interval for paired samples. "equal" counts weight codes and activation grids of the written file that
differ from the trained ones, and the share of test images on which the file and the trained net choose one class.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from architectures import NETS
from onnx import numpy_helper
from ptq_drop import classes_of

from rctk.checkpoint import load_model
from rctk.cli.console import table
from rctk.compress import STEPS
from rctk.compress.images import hold_out
from rctk.compress.step import Context, Draft
from rctk.data.read import read_split
from rctk.exporting.files import int8_files
from rctk.progress import Silent
from rctk.qat.net import QatNet
from rctk.qat.step import Qat
from rctk.statistics import paired_difference
from rctk_export.capture import capture
from rctk_export.quantize.grid import given_grid

WIDTHS = "8/8,4/4,3/3,2/2,1/1"


def main() -> None:
    """Print one table per network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", default="mnist-adv,resnet20")
    parser.add_argument("--widths", default=WIDTHS, help="weights/activations, separated by commas")
    parser.add_argument("--method", default="quant.lsq")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--settings", default="", help="further settings of the method")
    parser.add_argument("--samples", type=int, default=1000, help="test images")
    parser.add_argument("--models", type=Path, default=Path(os.environ.get("RCTK_MODELS", "models")))
    options = parser.parse_args()
    for name in options.nets.split(","):
        report(name, options)


def report(name: str, options: argparse.Namespace) -> None:
    """Train one network at every width."""
    net = NETS[name]
    loaded = load_model(options.models / net.file, arch=net.arch, input=net.input)
    draft = Draft(model=capture(loaded.module, net.input), input=net.input)
    train = read_split(f"{net.data.partition(':')[0]}:train", samples=options.images, seed=0)
    learn, held = hold_out(train, 0)
    context = Context(train=learn, validation=held, input=net.input)
    test = read_split(net.data, samples=options.samples)
    rows, before = [], None
    with tempfile.TemporaryDirectory(prefix="rctk-") as folder:
        parent = classes_of(draft.model, net.input, test.images, Path(folder), "") == test.labels
        for width in options.widths.split(","):
            start = time.perf_counter()
            step = step_of(width, options)
            trained = step.net(draft, context)
            history = step.train(trained, draft, context)
            (file,) = int8_files(trained.draft(), [step.target], learn.sample(256, 0), Silent())
            classes = classes_of(file.model, net.input, test.images, Path(folder), step.target)
            right = classes == test.labels
            versus = "" if before is None else points(paired_difference(before, right))
            rows.append(
                [
                    f"w{width.replace('/', 'a')}",
                    f"{right.mean():.1%}",
                    points(paired_difference(parent, right)),
                    versus,
                    f"{differing(trained, file.model)} differ, {same_class(trained, test.images, classes):.1%}",
                    f"{history.best.number}/{step.epochs}",
                    f"{time.perf_counter() - start:.0f} s",
                ]
            )
            print("  ".join(rows[-1]), flush=True)
            before = right
    title = f"{name}: float {parent.mean():.1%} of {len(test)} test images; {len(learn)} training images"
    table(title, ("width", "accuracy", "minus float", "minus the width above", "equal", "epoch", "time"), rows)


def step_of(width: str, options: argparse.Namespace) -> Qat:
    """Return the method at one width."""
    weights, _, activations = width.partition("/")
    text = f"{options.method}:weights={weights},activations={activations},epochs={options.epochs}"
    step = STEPS.build(f"{text},{options.settings}" if options.settings else text)
    assert isinstance(step, Qat)
    return step


def points(paired: object) -> str:
    """Return a difference and its interval in points."""
    difference, low, high = (100 * getattr(paired, name) for name in ("difference", "low", "high"))
    return f"{difference:+.1f} [{low:+.1f}, {high:+.1f}]"


def differing(net: QatNet, model: onnx.ModelProto) -> int:
    """Count weight codes, scales and activation grids of the file that are not those of the trained net."""
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    formats, wrong = net.draft().formats, 0
    for name, weight in formats.weights.items():
        codes, scales = stored[f"{name}.weight.codes"], stored[f"{name}.weight.scale"]
        assert weight.codes is not None
        wrong += int((codes[:, : weight.codes.shape[1]] != weight.codes).sum()) + int((scales != weight.scales).sum())
    for tensor, steps in formats.steps.items():
        grid = given_grid(steps, signed=False)
        assert grid is not None
        if f"{tensor}.scale" in stored:
            wrong += int(stored[f"{tensor}.scale"] != grid.scale) + int(stored[f"{tensor}.zero"] != grid.zero)
    return wrong


def same_class(net: QatNet, images: np.ndarray, classes: Sequence[int]) -> float:
    """Return the share of images on which the trained net and the file agree."""
    net.eval()
    with torch.inference_mode():
        parts = [net(torch.from_numpy(images[i : i + 100])).argmax(dim=1).numpy() for i in range(0, len(images), 100)]
    return float((np.concatenate(parts) == classes).mean())


if __name__ == "__main__":
    main()
