"""What an evaluation costs: our PGD, Auto-PGD and Square against plain torchattacks and ART, on the same images.

    python benchmarks/attack_cost.py [--rounds 5] [--samples 256] [--nets digits,digits-robust,resnet20,cnn-a]

A contender does what its user would do: attack a split in batches, classify the outcome, and report the share of
images that were right and stayed right. Ours does so through the judge. The digits networks are trained here; the
CIFAR-10 ones come from the folders named by RCTK_MODELS and RCTK_DATA and are left out where those are not set.
ART takes part where it can be imported. Contenders run interleaved on one thread. Each round has a seed of its own:
robust accuracy and passes are means over the rounds, the time is the least process-CPU time of a round.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torchattacks
from architectures import NETS
from torch import nn

from rctk.attacks import ATTACKS
from rctk.attacks.square import Square
from rctk.checkpoint import load_model
from rctk.data.read import read_split
from rctk.data.split import Split
from rctk.evaluation.judge import evaluate
from rctk.models.small import digits_cnn
from rctk.threat import ThreatModel
from rctk.train import TrainSettings, build_objective, draw_weights, train
from rctk.train.normalised import Normalised
from rctk_export.capture import capture
from rctk_export.engine import Source
from rctk_export.engines.onnxruntime import OnnxRuntime
from rctk_export.input_spec import FloatNCHW, FloatNK, InputSpec

BATCH = 64
DIGITS = InputSpec(channels=1, height=8, width=8)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network under attack."""

    name: str
    module: nn.Module
    spec: InputSpec
    split: Split
    eps: float

    @property
    def model(self) -> nn.Module:
        """The network for images in [0, 1], with constant parameters."""
        return Normalised(self.module, self.spec).eval().requires_grad_(False)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Robust accuracy and image passes of one evaluation."""

    robust: float
    forward: int
    backward: int


Contender = Callable[[int], Outcome]
"""Seed to outcome."""


class Tally(nn.Module):
    """Counts images; one that needs a gradient is taken to get it. Costs next to nothing, for the sake of the peers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.forward_images, self.backward_images = model, 0, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        self.forward_images += len(images)
        self.backward_images += len(images) * (torch.is_grad_enabled() and images.requires_grad)
        return self.model(images)


def predict_with(model: nn.Module, images: FloatNCHW) -> FloatNK:
    """Classify in torch."""
    with torch.no_grad():
        return model(torch.from_numpy(images)).numpy()


def ours(case: Case, attack: str, seed: int) -> Outcome:
    """Evaluate with rctk."""
    model = case.model
    result = evaluate(
        partial(predict_with, model),
        case.split,
        ATTACKS.build(attack),
        ThreatModel(eps=case.eps),
        seed=seed,
        batch_size=BATCH,
        model=model,
    )
    forward = result.forward_passes + int(result.queries.sum())
    return Outcome(robust=result.robust_accuracy, forward=forward, backward=result.backward_passes)


def theirs(case: Case, make: Callable[[nn.Module, int], Any], seed: int) -> Outcome:
    """Evaluate with torchattacks as its documentation shows: attack every image, classify clean and attacked ones."""
    torch.manual_seed(seed)
    model = Tally(case.model).eval()
    attack, robust = make(model, seed), 0
    for images, labels in case.split.batches(BATCH):
        x, y = torch.from_numpy(images), torch.from_numpy(labels)
        adversarial = attack(x, y)
        with torch.no_grad():
            robust += int(((model(x).argmax(1) == y) & (model(adversarial).argmax(1) == y)).sum())
    return Outcome(robust=robust / len(case.split), forward=model.forward_images, backward=model.backward_images)


def art_square(case: Case, queries: int, p_init: float, seed: int) -> Outcome:
    """Evaluate with ART's Square; its ``max_iter`` is the budget."""
    from art.attacks.evasion import SquareAttack
    from art.estimators.classification import BlackBoxClassifierNeuralNetwork

    model, count = case.model, 0

    def predict(images: FloatNCHW) -> FloatNK:
        nonlocal count
        count += len(images)
        return predict_with(model, images.astype(np.float32))

    images, labels = case.split.images, case.split.labels
    host = BlackBoxClassifierNeuralNetwork(predict, images.shape[1:], 10, channels_first=True, clip_values=(0, 1))
    attack = SquareAttack(host, norm=np.inf, max_iter=queries, eps=case.eps, p_init=p_init, batch_size=BATCH)
    attack.set_params(verbose=False)
    np.random.seed(seed)  # noqa: NPY002 - ART draws from the global state
    adversarial = attack.generate(images, np.eye(10, dtype=np.float32)[labels])
    right = (predict(images).argmax(1) == labels) & (predict(adversarial).argmax(1) == labels)
    return Outcome(robust=float(right.mean()), forward=count, backward=0)


def contenders(case: Case, queries: int) -> dict[str, dict[str, Contender]]:
    """Return, for each attack, who runs it; the first one is ours."""
    eps, step = case.eps, 0.25
    tables: dict[str, dict[str, Contender]] = {
        f"PGD-50, steps of eps/{1 / step:g}": {
            "rctk": partial(ours, case, f"pgd:steps=50,step_size={step}"),
            "torchattacks": partial(
                theirs, case, lambda model, _: torchattacks.PGD(model, eps=eps, alpha=step * eps, steps=50)
            ),
        },
        "APGD-CE-100": {
            "rctk": partial(ours, case, "apgd-ce"),
            "torchattacks": partial(
                theirs, case, lambda model, seed: torchattacks.APGD(model, eps=eps, steps=100, seed=seed)
            ),
        },
        "APGD-T 9x100": {
            "rctk": partial(ours, case, "apgd-t"),
            "torchattacks": partial(
                theirs, case, lambda model, seed: torchattacks.APGDT(model, eps=eps, steps=100, seed=seed)
            ),
        },
    }
    for p_init in (0.8, 0.3):
        tables[f"Square-{queries}, p_init {p_init}"] = {
            "rctk": partial(ours, case, f"square:queries={queries},p_init={p_init}"),
            "torchattacks": partial(
                theirs,
                case,
                lambda model, seed, p=p_init: torchattacks.Square(
                    model, eps=eps, n_queries=queries, p_init=p, seed=seed
                ),
            ),
        }
        if has_art():
            tables[f"Square-{queries}, p_init {p_init}"]["ART"] = partial(art_square, case, queries, p_init)
    return tables


def has_art() -> bool:
    """Say whether ART can be imported."""
    try:
        import art.attacks.evasion  # noqa: F401
    except ImportError:
        return False
    return True


def compare(title: str, table: dict[str, Contender], rounds: int) -> None:
    """Run all contenders in turn, ``rounds`` times, and print their costs and ratios to ours."""
    seconds = dict.fromkeys(table, np.inf)
    outcomes: dict[str, list[Outcome]] = {name: [] for name in table}
    for seed in range(rounds):
        for name, run in table.items():
            start = time.process_time()
            outcomes[name].append(run(seed))
            seconds[name] = min(seconds[name], time.process_time() - start)
    print(f"  {title}")
    forward = {name: np.mean([o.forward for o in found]) for name, found in outcomes.items()}
    backward = {name: np.mean([o.backward for o in found]) for name, found in outcomes.items()}
    for name, found in outcomes.items():
        robust = [100 * outcome.robust for outcome in found]
        passes = (forward[name] + backward[name]) / (forward["rctk"] + backward["rctk"])
        print(
            f"    {name:13} robust {np.mean(robust):5.2f} % ({min(robust):.1f}..{max(robust):.1f})  "
            f"forward {forward[name]:9,.0f}  backward {backward[name]:9,.0f}  cpu {seconds[name]:7.3f} s   "
            f"passes x{passes:.2f}  time x{seconds[name] / seconds['rctk']:.2f}",
            flush=True,
        )


def loop_share(case: Case, rounds: int, batch: int = 32, steps: int = 500) -> None:
    """Print Square's throughput as a share of what the engine does on the same batch without it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float.onnx"
        onnx.save(capture(case.module, case.spec), path)
        with OnnxRuntime().open(Source(path=path, input=case.spec)) as engine:
            images = case.split.images[:batch]
            labels = engine.predict(images).argmax(1)
            attack, threat = Square(queries=steps), ThreatModel(eps=1e-6)  # nothing breaks, so the batch stays full
            raw = loop = np.inf
            for _ in range(rounds):
                start = time.process_time()
                for _ in range(steps):
                    engine.predict(images)
                middle = time.process_time()
                attack(engine.predict, images, labels, threat, np.random.default_rng(0))
                raw, loop = min(raw, middle - start), min(loop, time.process_time() - middle)
    print(
        f"  Square's loop at batch {batch} on ONNX Runtime float32: {raw / loop:.1%} of the raw throughput "
        f"({batch * steps / raw:,.0f} images/s), {(loop - raw) / steps * 1e6:.0f} us a step",
        flush=True,
    )


def digits_case(name: str, objective: str, samples: int) -> Case:
    """Train the digits network; standard or with PGD at 0.15."""
    settings = TrainSettings(objective=build_objective(objective), epochs=15, validation_steps=1)
    module = digits_cnn()
    draw_weights(module, torch.Generator().manual_seed(0))
    data, test = read_split("digits:train"), read_split("digits:test", samples=samples)
    train(module, data, data.sample(64, 0), settings, input=DIGITS, progress=lambda _epoch, _module: None)
    return Case(name=name, module=module, spec=DIGITS, split=test, eps=0.15)


def published_case(name: str, folder: Path, samples: int) -> Case:
    """Load a published network and CIFAR-10's test images."""
    net = NETS[name]
    loaded = load_model(folder / net.file, arch=net.arch, input=net.input)
    split = read_split(net.data)
    return Case(
        name=name,
        module=loaded.module,
        spec=net.input,
        split=split.take(np.arange(min(samples, len(split)))),
        eps=8 / 255,
    )


def build_case(name: str, samples: int) -> Case | None:
    """Return the network called ``name``, or print why it is left out."""
    if name in {"digits", "digits-robust"}:
        return digits_case(name, "standard" if name == "digits" else "pgd-at:eps=0.15,steps=7", samples)
    folder = os.environ.get("RCTK_MODELS")
    if not folder or not os.environ.get("RCTK_DATA"):
        print(f"{name}: left out; set RCTK_MODELS and RCTK_DATA to the folders of models and data sets")
        return None
    return published_case(name, Path(folder), samples)


def main() -> None:
    """Print one table per network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--nets", default="digits,digits-robust,resnet20,cnn-a")
    parser.add_argument("--only", default="", help="run only attacks whose title contains this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not has_art():
        print("ART cannot be imported: its Square is left out (pip install adversarial-robustness-toolbox)")
    for name in options.nets.split(","):
        case = build_case(name, options.samples)
        if case is None:
            continue
        print(f"{case.name}: {len(case.split)} images of {case.split.name}, linf eps {case.eps:.4f}, batch {BATCH}")
        for title, table in contenders(case, options.queries).items():
            if options.only in title:
                compare(title, table, options.rounds)
        loop_share(case, options.rounds)


if __name__ == "__main__":
    main()
