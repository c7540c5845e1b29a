"""How far engine, twin and reference agree on published networks, file by file.

RCTK_DATA=... RCTK_MODELS=... python benchmarks/twin_agreement.py [NET ...] [--samples 1000] [--exact 64]
    [--targets cpu,openvino] [--clean]

For every int8 file of a bundle: the share of images that the fast twin and an engine put in the same class, on clean
images and (unless `--clean`) on PGD-10 images made against the twin. The engines are ONNX Runtime with the graph as it
is and optimised, and OpenVINO where it is installed. Also whether the exact twin equals the reference engine code for
code on some images, and whether the `tensorrt` file and its `cpu-mirror` give identical logits unoptimised. `resnet18`
and `mobilenetv2` have drawn weights (see speed_subjects.py) and are shown the test images of CIFAR-10.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import torch

sys.path.insert(0, str(Path(__file__).parent))
from architectures import IMAGENET, NETS
from speed_subjects import module_of

from rctk.cli.console import table
from rctk.data import Split, read_split
from rctk.exporting.agreement import adversarial_images
from rctk.exporting.export import ExportSettings, export_int8
from rctk.exporting.float_model import FloatModel, read_float_model
from rctk.statistics import wilson
from rctk_export.bundle import Bundle
from rctk_export.capture import capture
from rctk_export.engine import Source
from rctk_export.engines import ENGINES
from rctk_export.onnx_module import OnnxModule

DEFAULT = ("resnet20", "resnet56", "resnet56-pruned", "resnet-4b", "cnn-a", "resnet8", "mnist-adv", "gtsrb-stn")
ENGINE_NAMES = {"as written": "onnxruntime:optimize=false", "optimised": "onnxruntime"} | (
    {"OpenVINO": "openvino"} if find_spec("openvino") is not None else {}
)
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


def rows(name: str, bundle: Bundle, split: Split, exact: int, *, clean: bool) -> list[tuple[str, ...]]:
    """Measure the int8 files of one bundle."""
    made = []
    unoptimised = {}
    for target in bundle.targets():
        source = bundle.source("int8", target)
        attacked = [] if clean else [attacked_images(name, source, split)]
        cells = []
        for images in (split.images, *attacked):
            expected = logits(source, images, "twin")
            for engine in ENGINE_NAMES.values():
                found = logits(source, images, engine)
                cells.append(agreement(expected, found))
                if images is split.images and "optimize=false" in engine:
                    unoptimised[target] = found
        equal = exact_equals_reference(source, split.images[:exact])
        made.append((name, target, *cells, f"{'equal' if equal else 'DIFFERENT'} on {exact}"))
        print(f"  {made[-1]}", file=sys.stderr)
    if "tensorrt" in unoptimised:
        same = np.array_equal(unoptimised["tensorrt"], unoptimised["cpu-mirror"])
        print(f"{name}: tensorrt and cpu-mirror, unoptimised: {'identical logits' if same else 'DIFFERENT logits'}")
    return made


def attacked_images(name: str, source: Source, split: Split) -> np.ndarray:
    """Return PGD-10 images against the twin."""
    return adversarial_images(OnnxModule(source.path), split.images, EPS.get(name, 8 / 255), seed=0)


def bundle_of(name: str, folder: Path, targets: tuple[str, ...]) -> Bundle:
    """Export one network with default settings."""
    train = read_split(data_of(name).replace(":test", ":train"), samples=1024)
    if name in NETS:
        net = NETS[name]
        model = read_float_model(Path(os.environ["RCTK_MODELS"]) / net.file, arch=net.arch, input=net.input)
    else:
        module, _ = module_of(name, train.images[:64])
        model = FloatModel(model=capture(module, IMAGENET), input=IMAGENET, classes=train.classes)
    settings = ExportSettings(targets=targets, check_samples=16, allow_mismatch=True)  # it is measured here
    return export_int8(model, train, folder / name, settings)


def data_of(name: str) -> str:
    """Return the test images of a network."""
    return NETS[name].data if name in NETS else "cifar10:test"


def main() -> None:
    """Measure the named networks and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", default=DEFAULT)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--exact", type=int, default=64)
    parser.add_argument("--targets", default="cpu,openvino,tensorrt")
    parser.add_argument("--clean", action="store_true")
    options = parser.parse_args()
    found: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.nets:
            bundle = bundle_of(name, Path(folder), tuple(options.targets.split(",")))
            split = read_split(data_of(name), samples=options.samples, input=bundle.input)
            found.extend(rows(name, bundle, split, options.exact, clean=options.clean))
    cells = [
        f"{images}, {engine}" for images in ("clean", "PGD")[: 1 if options.clean else 2] for engine in ENGINE_NAMES
    ]
    title = f"fast twin against engines, {options.samples} images"
    table(title, ("net", "file", *cells, "exact = reference"), found)


if __name__ == "__main__":
    main()
