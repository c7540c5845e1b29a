"""How far engine, twin and reference agree on published networks, file by file.

RCTK_DATA=... RCTK_MODELS=... python benchmarks/twin_agreement.py [NET ...] [--samples 1000] [--exact 64]

For every int8 file of a bundle: the share of images that the fast twin and ONNX Runtime put in the same class, with the
graph as it is and optimised, on clean images and on PGD-10 images made against the twin; whether the exact twin equals
the reference engine code for code on some images; whether the `tensorrt` file and its `cpu-mirror` give identical
logits unoptimised.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch

sys.path.insert(0, str(Path(__file__).parent))
from architectures import NETS, Net

from rctk.cli.console import table
from rctk.data import Split, read_split
from rctk.exporting.agreement import adversarial_images
from rctk.exporting.export import ExportSettings, export_int8
from rctk.exporting.float_model import read_float_model
from rctk.statistics import wilson
from rctk_export.bundle import Bundle
from rctk_export.engine import Source
from rctk_export.engines import ENGINES
from rctk_export.onnx_module import OnnxModule

DEFAULT = ("resnet20", "resnet56", "resnet56-pruned", "resnet-4b", "cnn-a", "resnet8", "mnist-adv", "gtsrb-stn")
EPS = {"mnist-adv": 0.3, "resnet-4b": 2 / 255, "cnn-a": 2 / 255}


def logits(source: Source, images: np.ndarray, engine: str) -> np.ndarray:
    """Run one engine over all images, 50 at a time."""
    with ENGINES.build(engine).open(source) as opened:
        return np.concatenate([opened.predict(images[i : i + 50]) for i in range(0, len(images), 50)])


def exact_equals_reference(source: Source, images: np.ndarray) -> bool:
    """Compare every activation code and the logits of the exact twin with the reference engine."""
    names = [n.output[0] for n in onnx.load(source.path).graph.node if n.op_type == "QuantizeLinear"]
    twin = OnnxModule(source.path, mode="exact")
    with torch.no_grad():
        expected = twin.observe(torch.from_numpy(images), names)
        own = twin(torch.from_numpy(images)).numpy()
    with ENGINES.build("reference").open(source) as engine:
        found = engine.run(images, names)  # type: ignore[attr-defined]  # the reference shows its codes
        same = all(np.array_equal(found[n].astype(np.int64), expected[n].numpy().astype(np.int64)) for n in names)
        return same and np.array_equal(engine.predict(images), own)


def agreement(first: np.ndarray, second: np.ndarray) -> str:
    """Word the share of equal classes with its 95 % interval."""
    same = int((first.argmax(1) == second.argmax(1)).sum())
    low, high = wilson(same, len(first))
    return f"{same / len(first):.1%} [{low:.1%}, {high:.1%}]"


def rows(name: str, bundle: Bundle, split: Split, exact: int) -> list[tuple[str, ...]]:
    """Measure the three int8 files of one bundle."""
    made = []
    unoptimised = {}
    for target in bundle.targets():
        source = bundle.source("int8", target)
        twin = OnnxModule(source.path)
        attacked = adversarial_images(twin, split.images, EPS.get(name, 8 / 255), seed=0)
        cells = []
        for images in (split.images, attacked):
            expected = logits(source, images, "twin")
            for optimize in ("false", "true"):
                found = logits(source, images, f"onnxruntime:optimize={optimize}")
                cells.append(agreement(expected, found))
                if images is split.images and optimize == "false":
                    unoptimised[target] = found
        equal = exact_equals_reference(source, split.images[:exact])
        made.append((name, target, *cells, f"{'equal' if equal else 'DIFFERENT'} on {exact}"))
        print(f"  {made[-1]}", file=sys.stderr)
    same = np.array_equal(unoptimised["tensorrt"], unoptimised["cpu-mirror"])
    print(f"{name}: tensorrt and cpu-mirror, unoptimised: {'identical logits' if same else 'DIFFERENT logits'}")
    return made


def bundle_of(name: str, net: Net, folder: Path) -> Bundle:
    """Export one network with default settings."""
    path = Path(os.environ["RCTK_MODELS"]) / net.file
    model = read_float_model(path, arch=net.arch, input=net.input)
    train = read_split(net.data.replace(":test", ":train"), samples=1024, input=net.input)
    return export_int8(model, train, folder / name, ExportSettings(allow_mismatch=True))


def main() -> None:
    """Measure the named networks and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", default=DEFAULT)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--exact", type=int, default=64)
    options = parser.parse_args()
    found: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.nets:
            bundle = bundle_of(name, NETS[name], Path(folder))
            split = read_split(NETS[name].data, samples=options.samples, input=bundle.input)
            found.extend(rows(name, bundle, split, options.exact))
    columns = (
        "net",
        "file",
        "clean, as written",
        "clean, optimised",
        "PGD, as written",
        "PGD, optimised",
        "exact = reference",
    )
    table(f"fast twin against ONNX Runtime, {options.samples} images", columns, found)


if __name__ == "__main__":
    main()
