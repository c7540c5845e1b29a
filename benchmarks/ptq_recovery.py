"""What equalization and adaptive rounding bring back: a published ResNet-20, files as `rctk export` writes them.

    RCTK_MODELS=... RCTK_DATA=... python benchmarks/ptq_recovery.py [--part equalize|rounding] [--net resnet20]

equalize: every channel between two layers is multiplied by a factor drawn log-uniformly from 1 to 64, and the next
layer divides by it; the float function is the same. Weights per tensor then lose accuracy, and the table says which
share of the loss `quant.equalize` brings back. rounding: weights of 8 to 2 bits per channel, activations in float,
every layer counted; rounding to nearest on covering scales (`nearest`) and on the best ones (`seqmse`) against
`quant.adaround`, and on two grids (`pwlq`, up to twice as many values).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from architectures import NETS
from ptq_drop import classes_of

from rctk.checkpoint import load_model
from rctk.cli.console import Bars, table
from rctk.compress.step import Context, Draft, GraphStep
from rctk.data.read import read_split
from rctk.data.split import Split
from rctk.exporting.files import int8_files
from rctk.progress import Silent
from rctk.quantize.adaround import AdaRound
from rctk.quantize.bias_correction import BiasCorrection
from rctk.quantize.chains import links
from rctk.quantize.equalize import Equalize, rescale
from rctk.quantize.layers import rounded, weight_layers
from rctk.quantize.pwlq import Pwlq
from rctk.quantize.seqmse import SeqMse
from rctk.statistics import paired_difference
from rctk_export.capture import capture
from rctk_export.graph import Graph
from rctk_export.onnx_module import OnnxModule

BATCH = 100
FACTOR = 64.0


def rescaled(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """Return the same function with channels multiplied by factors from 1 to ``FACTOR``."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph, rng = Graph(copy), np.random.default_rng(seed)
    for link in links(graph):
        rescale(graph, link, 1 / np.exp(rng.uniform(0, np.log(FACTOR), link.channels)))
    return graph.finish()


def engine_correct(draft: Draft, train: Split, test: Split) -> np.ndarray:
    """Return which test images the ``cpu`` file of ``draft`` gets right in ONNX Runtime, ``(N,)``."""
    (item,) = int8_files(draft, ("cpu",), train, Silent())
    return classes_of(item.model, draft.input, test.images, "cpu") == test.labels


def weights_correct(draft: Draft, test: Split) -> np.ndarray:
    """Return which test images are right with rounded weights and float activations, ``(N,)``."""
    module = OnnxModule(draft.model).requires_grad_(False)
    for layer in weight_layers(draft):
        module.initializers[layer.initializer].copy_(torch.from_numpy(rounded(draft.formats, layer)))
    with torch.inference_mode():
        parts = [module(torch.from_numpy(images)).argmax(1).numpy() for images, _ in test.batches(BATCH)]
    return np.concatenate(parts) == test.labels


def timed(step: GraphStep, draft: Draft, context: Context) -> tuple[Draft, float]:
    """Return the new draft and the seconds it took."""
    start = time.perf_counter()
    return step(draft, context), time.perf_counter() - start


def equalization(draft: Draft, context: Context, test: Split, draws: int) -> None:
    """Print accuracies per tensor before and after the rescale, and behind the steps."""
    calibration = context.train.sample(512, 0)
    per_tensor = draft.with_formats(per_channel=False)
    healthy = engine_correct(per_tensor, calibration, test).mean()
    rows = []
    for seed in range(draws):
        broken = Draft(model=rescaled(draft.model, seed), input=draft.input).with_formats(per_channel=False)
        loss = engine_correct(broken, calibration, test).mean()
        equal, seconds = timed(Equalize(), broken, context)
        after = engine_correct(equal, calibration, test).mean()
        corrected = engine_correct(timed(BiasCorrection(), equal, context)[0], calibration, test).mean()
        share = (after - loss) / (healthy - loss)
        rows.append((seed, *(f"{x:.2%}" for x in (healthy, loss, after, corrected)), f"{share:.1%}", f"{seconds:.2f}"))
    columns = ("draw", "per tensor", "rescaled", "equalized", "and bias corrected", "of the loss recovered", "seconds")
    table(f"equalization, {len(test)} images", columns, rows)


def rounding(draft: Draft, context: Context, test: Split, widths: list[int]) -> None:
    """Print accuracies per width and method, with the difference to float."""
    right = weights_correct(draft.with_formats(weight_bits=8), test)  # 8 bits run first: their nearest row
    module = OnnxModule(draft.model)
    with torch.inference_mode():
        parts = [module(torch.from_numpy(images)).argmax(1).numpy() for images, _ in test.batches(BATCH)]
    float_right = np.concatenate(parts) == test.labels
    rows = [("float", "-", f"{float_right.mean():.2%}", "", "", ""), ("nearest", 8, f"{right.mean():.2%}", "", "", "")]
    for bits in widths:
        start = draft.with_formats(weight_bits=bits)
        scaled, scale_time = timed(SeqMse(), start, context)
        learned, time_alone = timed(AdaRound(), start, context)
        both, more = timed(AdaRound(), scaled, context)
        two_grids, grid_time = timed(Pwlq(bits=bits), draft, context)
        alone = (("nearest", start, 0.0), ("pwlq", two_grids, grid_time), ("seqmse", scaled, scale_time))
        found = (*alone, ("adaround", learned, time_alone))
        for name, made, seconds in (*found, ("seqmse, adaround", both, scale_time + more)):
            correct = weights_correct(made, test)
            paired = paired_difference(float_right, correct)
            interval = f"{100 * paired.low:+.2f}..{100 * paired.high:+.2f}"
            rows.append(
                (name, bits, f"{correct.mean():.2%}", f"{100 * paired.difference:+.2f}", interval, f"{seconds:.1f}")
            )
    columns = ("method", "bits", "accuracy", "minus float, points", "95 % interval", "seconds")
    table(f"weights per channel, activations float, {len(test)} images", columns, rows)


def main() -> int:
    """Read the flags, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("equalize", "rounding", "both"), default="both")
    parser.add_argument("--net", default="resnet20")
    parser.add_argument("--bits", default="4,3,2")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--samples", type=int, help="test images; all by default")
    parser.add_argument("--models", type=Path, default=os.environ.get("RCTK_MODELS"), help="RCTK_MODELS by default")
    options = parser.parse_args()
    if options.models is None or not os.environ.get("RCTK_DATA"):
        print("set RCTK_MODELS and RCTK_DATA to the folders of models and data sets", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    net = NETS[options.net]
    loaded = load_model(options.models / net.file, arch=net.arch, input=net.input)
    train = read_split(f"{net.data.partition(':')[0]}:train", samples=2000, seed=0)
    test = read_split(net.data, samples=options.samples)
    draft = Draft(model=capture(loaded.module, net.input), input=net.input)
    context = Context(train=train, validation=train.take(np.arange(0)), input=net.input, progress=Bars())
    if options.part != "rounding":
        equalization(draft, context, test, options.draws)
    if options.part != "equalize":
        rounding(draft, context, test, [int(bits) for bits in options.bits.split(",")])
    return 0


if __name__ == "__main__":
    sys.exit(main())
