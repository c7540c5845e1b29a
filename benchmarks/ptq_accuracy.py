"""rctk's post-training quantization against onnxruntime.quantization and NNCF: accuracy, calibration time, memory.

    RCTK_MODELS=... RCTK_DATA=... python benchmarks/ptq_accuracy.py --part accuracy [--nets resnet20,my.pt] [--draws 5]
    RCTK_MODELS=... RCTK_DATA=... python benchmarks/ptq_accuracy.py --part cost [--tools rctk:minmax,ort:entropy]

A tool is ``rctk:CALIBRATOR``, ``ort:minmax|entropy|percentile`` or ``nncf``; those that are not installed are left
out by name. A net is a name of `architectures.py` or a checkpoint of `rctk train` on CIFAR-10. accuracy: every tool
quantizes the same float graph with the same calibration images, uint8 activations and int8 weights per channel; ONNX
Runtime classifies the same test images with each file. A drop is float minus int8 in points: its mean over the draws
with a bootstrap interval over images (an image counts once, with its mean over draws and views), and Tango's interval
draw by draw. The second table takes rctk's mean drop minus that of the peer with the smallest, in the same way.

int8 moves few images, and which of them cross a boundary is chance: with 1,000 images the drop of one file is known to
about half a point. `--views 6` therefore classifies every image also mirrored and moved by one pixel up, down, left and
right, which networks of 32x32 pictures must bear. "divergence" is the mean Kullback-Leibler divergence of the int8 from
the float answer in millinats; it needs no labels and tells tools apart where accuracy does not.

cost:
calibration of 128 and of 4,096 images, each in a process of its own, which holds all images either way; time as a
multiple of the tool's own float forward pass over those images (for rctk its graph module, else ONNX Runtime; batches
of 32, one thread; CPU time), memory as growth of the peak.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import torch
from architectures import NETS
from int8_peers import quiet
from ptq_drop import logits_of

from rctk.checkpoint import load_model
from rctk.cli.console import table
from rctk.compress.step import Draft
from rctk.data.read import read_split
from rctk.data.split import Split
from rctk.exporting.files import int8_files
from rctk.progress import Silent
from rctk.statistics import paired_difference
from rctk.statistics.bootstrap import bootstrap
from rctk_export.capture import INPUT, capture
from rctk_export.input_spec import FloatNCHW, FloatNK, InputSpec
from rctk_export.onnx_module import OnnxModule

Flags = npt.NDArray[np.int8]
MOVES = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))
"""Top left corner of a view in an image with a margin of one pixel; the first is the image itself."""
BATCH = 32
FEW, MANY = 128, 4096
RCTK = ("minmax", "moving-average", "percentile", "entropy", "mse")
TOOLS = (*(f"rctk:{name}" for name in RCTK), "ort:minmax", "ort:percentile", "ort:entropy", "nncf")
PACKAGES = {"ort": "onnxruntime", "nncf": "nncf"}


def rctk_file(model: onnx.ModelProto, spec: InputSpec, images: FloatNCHW, calibrator: str) -> onnx.ModelProto:
    """Quantize with rctk for target ``cpu``."""
    split = Split(name="calibration", images=images, labels=np.zeros(len(images), np.int64))
    (item,) = int8_files(Draft(model=model, input=spec, calibrator=calibrator), ("cpu",), split, Silent())
    return item.model


def ort_file(model: onnx.ModelProto, images: FloatNCHW, method: str) -> onnx.ModelProto:
    """Quantize with ``quantize_static``: Q/DQ, uint8 activations, int8 weights per channel, its own clean-up first."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            self.batches = iter([images[start : start + BATCH] for start in range(0, len(images), BATCH)])

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch}

    methods = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
    with quiet(), tempfile.TemporaryDirectory() as folder:
        parts = [Path(folder) / name for name in ("float.onnx", "prepared.onnx", "int8.onnx")]
        onnx.save(model, parts[0])
        quant_pre_process(str(parts[0]), str(parts[1]))
        quantize_static(
            str(parts[1]),
            str(parts[2]),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=getattr(CalibrationMethod, methods[method]),
        )
        return onnx.load(parts[2])


def nncf_file(model: onnx.ModelProto, images: FloatNCHW) -> onnx.ModelProto:
    """Quantize with NNCF's ONNX back end and its defaults, bias correction included."""
    with quiet():
        import nncf

        data = nncf.Dataset([{INPUT: images[i : i + 1]} for i in range(len(images))])
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return nncf.quantize(copy, data, subset_size=len(images))


def quantized(tool: str, model: onnx.ModelProto, spec: InputSpec, images: FloatNCHW) -> onnx.ModelProto:
    """Return the int8 file of ``tool``."""
    family, _, method = tool.partition(":")
    if family == "rctk":
        return rctk_file(model, spec, images, method)
    return ort_file(model, images, method) if family == "ort" else nncf_file(model, images)


class Subject(NamedTuple):
    """A float network, the images that judge it, and what it answers.

    Attributes:
        model: Float graph.
        input: Of its images.
        data: Name of the data set.
        images: All views, ``(V * N, C, H, W)``; the first ``N`` are the images themselves.
        labels: ``(N,)``.
        logits: Of the float graph, ``(V * N, K)``.
    """

    model: onnx.ModelProto
    input: InputSpec
    data: str
    images: FloatNCHW
    labels: npt.NDArray[np.int64]
    logits: FloatNK

    def correct(self, logits: FloatNK) -> npt.NDArray[np.bool_]:
        """Return for every view and image whether ``logits`` are right, ``(V, N)``."""
        return np.asarray(logits.argmax(axis=1).reshape(-1, len(self.labels)) == self.labels)


class Lost(NamedTuple):
    """What the files of one tool do to a network.

    Attributes:
        flags: 1 where int8 lost an image, -1 where it gained it, else 0: ``(draws, V, N)``.
        divergence: From the float answer, in nats, ``(draws,)``.
    """

    flags: Flags
    divergence: npt.NDArray[np.float64]


def views_of(images: FloatNCHW, count: int) -> FloatNCHW:
    """Return ``count`` views of every image: itself, moved by one pixel, and mirrored."""
    height, width = images.shape[2:]
    wide = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    moved = [wide[:, :, y : y + height, x : x + width] for y, x in MOVES]
    return np.ascontiguousarray(np.concatenate([moved[0], images[..., ::-1], *moved[1:]][:count]))


def divergence(float_logits: FloatNK, logits: FloatNK) -> float:
    """Return the mean Kullback-Leibler divergence of the second answers from the first, in nats."""
    one, two = (torch.from_numpy(each).double().log_softmax(dim=1) for each in (float_logits, logits))
    return float(torch.nn.functional.kl_div(two, one, reduction="batchmean", log_target=True))


def subject_of(options: argparse.Namespace, name: str) -> Subject:
    """Return a network with its test images, classified by the float graph."""
    model, spec, data = float_graph(options, name)
    test = read_split(data, samples=options.samples)
    images = views_of(test.images, options.views)
    logits = logits_of(model, spec, images, "")
    return Subject(model, spec, data.partition(":")[0], images, test.labels, logits)


def float_graph(options: argparse.Namespace, name: str) -> tuple[onnx.ModelProto, InputSpec, str]:
    """Return the graph of a published network or of a checkpoint, its input and its data set."""
    if name not in NETS:
        own = load_model(name)
        return capture(own.module, own.input), own.input, "cifar10:test"
    net = NETS[name]
    loaded = load_model(options.models / net.file, arch=net.arch, input=net.input)
    return capture(loaded.module, net.input), net.input, net.data


def drops(options: argparse.Namespace, name: str, tool: str, subject: Subject) -> Lost | None:
    """Quantize for every draw and compare each file with the float graph; None where the tool fails."""
    lost, far = [], []
    before = subject.correct(subject.logits)
    for draw in range(options.draws):
        images = read_split(f"{subject.data}:train", samples=512, seed=draw).images
        try:
            made = quantized(tool, subject.model, subject.input, images)
        except Exception as error:  # noqa: BLE001  # a peer that fails is a line, not the end
            print(f"{tool} fails on {name}: {str(error).splitlines()[0][:200]}", file=sys.stderr)
            return None
        logits = logits_of(made, subject.input, subject.images, "cpu")
        lost.append(before.astype(np.int8) - subject.correct(logits))
        far.append(divergence(subject.logits, logits))
    return Lost(np.array(lost), np.array(far))


def points(flags: Flags) -> str:
    """Return the mean over draws, views and images in points with its interval over images."""
    found = bootstrap(flags.mean(axis=(0, 1)))
    return f"{100 * found.value:+.2f} [{100 * found.low:+.2f}, {100 * found.high:+.2f}]"


def accuracy(options: argparse.Namespace) -> None:
    """Print the drop of every tool and network, averaged over draws, and rctk against the better peer."""
    rows, duels = [], []
    for name in options.nets.split(","):
        subject = subject_of(options, name)
        before, lost = subject.correct(subject.logits), {}
        for tool in options.tools:
            found = drops(options, name, tool, subject)
            if found is None:
                continue
            lost[tool] = found.flags
            each = [paired_difference(before[0], before[0].astype(np.int8) - row[0] == 1) for row in found.flags]
            intervals = "  ".join(f"{-100 * one.high:+.2f}..{-100 * one.low:+.2f}" for one in each)
            count, exact = f"{len(subject.labels)} x {options.views}", f"{before.mean():.2%}"
            far = f"{1000 * found.divergence.mean():.2f}"
            rows.append((Path(name).stem, tool, count, exact, points(found.flags), far, intervals))
            print(*rows[-1], file=sys.stderr, flush=True)
        peers = {tool: flags for tool, flags in lost.items() if not tool.startswith("rctk")}
        best = min(peers, key=lambda tool: peers[tool].mean(), default=None)
        if best is not None:
            ours = [tool for tool in lost if tool not in peers]
            duels += [(Path(name).stem, tool, best, points(lost[tool] - peers[best])) for tool in ours]
    columns = (
        "network",
        "tool",
        "images",
        "float",
        "mean drop",
        "divergence",
        "first view: 95 % interval, draw by draw",
    )
    table(f"clean top-1, points, {options.draws} draws", columns, rows)
    table("mean drop minus that of the best peer, points", ("network", "tool", "peer", "difference"), duels)


def seconds(call: Callable[[], object]) -> float:
    """Return the CPU time of ``call``, which other work on the machine does not lengthen."""
    start = time.process_time()
    call()
    return time.process_time() - start


def forward(tool: str, model: onnx.ModelProto, images: FloatNCHW) -> float:
    """Return the seconds of a float pass, warmed up."""
    parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    if tool.startswith("rctk"):
        module = OnnxModule(model)
        run: Callable[[FloatNCHW], object] = lambda part: module(torch.from_numpy(part))  # noqa: E731
    else:
        import onnxruntime as ort

        settings = ort.SessionOptions()
        settings.intra_op_num_threads = 1
        session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
        run = lambda part: session.run(None, {INPUT: part})  # noqa: E731
    with torch.inference_mode():
        run(parts[0])
        return seconds(lambda: [run(part) for part in parts])


def child(options: argparse.Namespace) -> None:
    """Measure one tool on one number of images and print JSON."""
    model, spec, data = float_graph(options, options.nets.split(",")[0])
    images = read_split(f"{data.partition(':')[0]}:train", samples=MANY, seed=0).images
    tool, count = options.child.rsplit(",", 1)
    used = images[: int(count)]
    quantized(tool, model, spec, images[:BATCH])  # imports and lazy parts
    passed = forward(tool, model, used)
    took = seconds(lambda: quantized(tool, model, spec, used))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"forward_s": passed, "calibration_s": took, "peak_mib": peak}))


def cost(options: argparse.Namespace) -> None:
    """Print time and memory of every tool."""
    rows = []
    for tool in options.tools:
        found = {}
        for count in (FEW, options.many):
            command = [sys.executable, __file__, "--child", f"{tool},{count}", "--nets", options.nets]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            lines = done.stdout.strip().splitlines()
            if done.returncode or not lines:
                print(f"{tool} fails: {done.stderr.strip()[-300:]}", file=sys.stderr)
                break
            found[count] = json.loads(lines[-1])
        if len(found) == 2:
            few, many = found[FEW], found[options.many]
            grown = many["peak_mib"] / few["peak_mib"] - 1
            ratio = many["calibration_s"] / many["forward_s"]
            cells = (tool, f"{many['forward_s']:.2f}", f"{many['calibration_s']:.2f}", f"{ratio:.2f}")
            rows.append((*cells, f"{few['peak_mib']:.0f}", f"{many['peak_mib']:.0f}", f"{grown:+.1%}"))
            print(*rows[-1], file=sys.stderr, flush=True)
    columns = ("tool", "forward, s", "quantize, s", "ratio", f"peak MiB, {FEW}", f"peak MiB, {options.many}", "growth")
    table(f"{options.nets.split(',')[0]}, {options.many} images", columns, rows)


def main() -> int:
    """Read the flags and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("accuracy", "cost"), default="accuracy")
    parser.add_argument("--nets", default="resnet20")
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--views", type=int, default=1, choices=range(1, len(MOVES) + 2), help="of every test image")
    parser.add_argument("--many", type=int, default=MANY, help="images of the larger calibration")
    parser.add_argument("--samples", type=int, help="test images; all by default")
    parser.add_argument("--models", type=Path, default=os.environ.get("RCTK_MODELS"), help="RCTK_MODELS by default")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.models is None or not os.environ.get("RCTK_DATA"):
        print("set RCTK_MODELS and RCTK_DATA to the folders of models and data sets", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    if options.child:
        child(options)
        return 0
    asked = options.tools.split(",")
    options.tools = [tool for tool in asked if find_spec(PACKAGES.get(tool.partition(":")[0], "rctk"))]
    for tool in sorted(set(asked) - set(options.tools)):
        print(f"{tool} is not installed here and left out", file=sys.stderr)
    (accuracy if options.part == "accuracy" else cost)(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
