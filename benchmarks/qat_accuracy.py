"""What training on few bits keeps of a published network's accuracy, and whether the file is what was trained.

    RCTK_MODELS=... RCTK_DATA=... python benchmarks/qat_accuracy.py [--nets mnist-clean,resnet20] [--images 30000]
    python benchmarks/qat_accuracy.py --nets resnet20 --widths 4/4 --epochs 2 --settings "lr=0.003" --out FOLDER

Every width starts from the float network; ``--method`` trains ``--epochs`` on the first ``--images`` of a seeded draw,
a tenth of which chooses the epoch. Images of CIFAR-10 are shifted and mirrored. ONNX Runtime classifies the test images
with each file; a difference is in points, with Tango's 95 % interval for paired samples. "equal" counts weight codes
and activation grids of the written file that differ from the trained ones, and the share of test images on which the
file and the trained net choose one class. With ``--out`` every result is kept, so that widths can be run one by one,
each with settings of its own; the table shows all that are there.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


class Notes(Silent):
    """Prints what steps say, and no bars."""

    def note(self, text: str) -> None:
        """Print a line."""
        print(text, flush=True)


def main() -> None:
    """Train what is missing and print one table per network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", default="mnist-clean,resnet20")
    parser.add_argument("--widths", default=WIDTHS, help="weights/activations, separated by commas")
    parser.add_argument("--method", default="quant.lsq")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--settings", default="", help="further settings of the method")
    parser.add_argument("--samples", type=int, default=10000, help="test images, at most")
    parser.add_argument("--out", type=Path, help="folder of results; those that are there are not run again")
    parser.add_argument("--models", type=Path, default=Path(os.environ.get("RCTK_MODELS", "models")))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rctk-") as folder:
        for name in options.nets.split(","):
            report(name, options, options.out or Path(folder))


def report(name: str, options: argparse.Namespace, out: Path) -> None:
    """Train one network at every width, and compare all widths that are there."""
    out.mkdir(parents=True, exist_ok=True)
    if missing := [width for width in options.widths.split(",") if not result_file(out, name, width).exists()]:
        train_widths(name, missing, options, out)
    parent = json.loads(result_file(out, name, "float").read_text())
    before, rows = None, []
    for width in WIDTHS.split(","):
        if not (path := result_file(out, name, width)).exists():
            continue
        found = json.loads(path.read_text())
        right = np.array(found["right"], dtype=bool)
        rows.append(
            [
                f"w{width.replace('/', 'a')}",
                f"{right.mean():.1%}",
                points(paired_difference(np.array(parent["right"], dtype=bool), right)),
                "" if before is None else points(paired_difference(before, right)),
                f"{found['differing']} differ, {found['same']:.1%}",
                f"{found['images']:,} x {found['best']}/{found['epochs']}",
                f"{found['cpu_s']:.0f} s",
                found["settings"],
            ]
        )
        before = right
    title = f"{name}: float {np.mean(parent['right']):.1%} of {len(parent['right'])} test images"
    columns = (
        "width",
        "accuracy",
        "minus float",
        "minus the width above",
        "equal",
        "images x epoch",
        "CPU",
        "settings",
    )
    table(title, columns, rows)


def result_file(out: Path, name: str, width: str) -> Path:
    """Return where a result is kept."""
    return out / f"{name}-{width.replace('/', '-')}.json"


def train_widths(name: str, widths: Sequence[str], options: argparse.Namespace, out: Path) -> None:
    """Train one network at each width and keep which test images its file gets right."""
    net = NETS[name]
    loaded = load_model(options.models / net.file, arch=net.arch, input=net.input)
    draft = Draft(model=capture(loaded.module, net.input), input=net.input)
    train = read_split(f"{net.data.partition(':')[0]}:train", samples=options.images, seed=0)
    learn, held = hold_out(train, 0)
    test = read_split(net.data)
    test = test.take(np.arange(min(options.samples, len(test))))
    right = classes_of(draft.model, net.input, test.images, "") == test.labels
    keep(result_file(out, name, "float"), right, {})
    for width in widths:
        start = time.process_time()
        step = step_of(width, "" if net.data.startswith("mnist") else "crop+flip", options)
        context = Context(train=learn, validation=held, input=net.input, progress=Notes())
        trained = step.net(draft, context)
        history = step.train(trained, draft, context)
        (file,) = int8_files(trained.draft(), [step.target], learn.sample(256, 0), Silent())
        classes = classes_of(file.model, net.input, test.images, step.target)
        found = {
            "differing": differing(trained, file.model),
            "same": same_class(trained, test.images, classes),
            "images": len(learn),
            "best": history.best.number,
            "epochs": step.epochs,
            "cpu_s": time.process_time() - start,
            "settings": options.settings,
        }
        keep(result_file(out, name, width), classes == test.labels, found)


def keep(path: Path, right: np.ndarray, found: dict[str, Any]) -> None:
    """Write one result."""
    path.write_text(json.dumps({**found, "right": right.astype(int).tolist()}))


def step_of(width: str, augment: str, options: argparse.Namespace) -> Qat:
    """Return the method at one width."""
    weights, _, activations = width.partition("/")
    text = f"{options.method}:weights={weights},activations={activations},epochs={options.epochs},augment={augment}"
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
