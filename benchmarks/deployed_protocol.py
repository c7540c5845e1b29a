"""What the standard protocol costs on an int8 engine, against ART's black-box wrapper plus torchattacks.

    rctk export ... -o BUNDLE
    RCTK_DATA=... python benchmarks/deployed_protocol.py BUNDLE [--samples 64] [--eps 1/255] [--data cifar10:test]

The peers do what their documentation shows: torchattacks crafts APGD-CE and APGD-T (100 steps) on the float module and
on the twin, ART runs Square and HopSkipJump on the engine through BlackBoxClassifierNeuralNetwork, each on all images
that the engine gets right; what they return is projected into the budget, replayed on the engine, and the worst case
per image counts. With `--survivors` they are also handed only what is left, which no documentation shows. On both sides
the engine is judged and the float model only crafts; with `--both` ours judges the float model under the same attacks
as well. Our first figure holds all six tiers and the masking audit; what the tiers that the peers do as well take is
printed beside it. Passes are images forward and backward through the two modules; queries are images that
the engine classifies. Needs ART and torchattacks; an engine that answers from one thread is assumed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rctk.data import read_split
from rctk.data.split import Labels, Split
from rctk.deployment import open_deployment
from rctk.evaluation.counted_model import CountedModel
from rctk.evaluation.protocol import PROTOCOLS
from rctk.evaluation.protocol_run import run_protocol
from rctk.evaluation.subjects import Subject
from rctk.forms import open_forms
from rctk.threat import ThreatModel
from rctk_export.input_spec import FloatNCHW, FloatNK
from rctk_export.registry import number

BATCH = 64
PEER_TIERS = ("transfer-float", "transfer-twin", "score", "decision")


class Engine:
    """The engine, counting what it classifies."""

    def __init__(self, predict: Callable[[FloatNCHW], FloatNK]) -> None:
        self._predict, self.queries = predict, 0

    def __call__(self, images: FloatNCHW) -> FloatNK:
        """Return logits ``(N, K)``, at most a batch at a time."""
        self.queries += len(images)
        images = np.ascontiguousarray(images, dtype=np.float32)
        return np.concatenate([self._predict(images[at : at + BATCH]) for at in range(0, len(images), BATCH)])


def apgd(module: nn.Module, name: str, threat: ThreatModel) -> Callable[[FloatNCHW, Labels], FloatNCHW]:
    """Return torchattacks' APGD-CE or APGD-T on a module."""
    import torchattacks

    if name == "APGD-CE":
        attack = torchattacks.APGD(module, norm="Linf", eps=threat.eps, steps=100, n_restarts=1, seed=0, loss="ce")
    else:
        attack = torchattacks.APGDT(module, norm="Linf", eps=threat.eps, steps=100, n_restarts=1, seed=0, n_classes=10)
    attack.set_device(torch.device("cpu"))

    def craft(x: FloatNCHW, y: Labels) -> FloatNCHW:
        parts = zip(torch.from_numpy(x).split(BATCH), torch.from_numpy(y).split(BATCH), strict=True)
        return np.asarray(torch.cat([attack(images, labels) for images, labels in parts]).detach())

    return craft


def black_box(engine: Engine, name: str, threat: ThreatModel, shape: tuple[int, ...], queries: int) -> Any:
    """Return ART's Square, or HopSkipJump with about as many queries."""
    from art.attacks.evasion import HopSkipJump, SquareAttack
    from art.estimators.classification import BlackBoxClassifierNeuralNetwork

    host = BlackBoxClassifierNeuralNetwork(engine, shape, 10, channels_first=True, clip_values=(0, 1))
    if name == "Square":
        attack = SquareAttack(host, norm=np.inf, eps=threat.eps, max_iter=queries, batch_size=BATCH, verbose=False)
    else:
        steps = max(1, round((0.015 * queries) ** (2 / 3)))  # the evaluations of step t are 100 sqrt(t)
        attack = HopSkipJump(host, norm=np.inf, max_iter=steps, verbose=False)
    return lambda x, y: attack.generate(x, np.eye(10, dtype=np.float32)[y])


def peers(forms: Sequence[Subject], split: Split, threat: ThreatModel, queries: int, *, survivors: bool) -> None:
    """Run the other libraries and print what they cost and leave."""
    engine = Engine(forms[1].predict)
    modules = {form.name: CountedModel(torch_module(form)).eval() for form in forms}
    started = time.perf_counter()
    right = engine(split.images).argmax(axis=1) == split.labels
    robust = right.copy()
    jobs = {f"torchattacks {a} on {n}": apgd(m, a, threat) for n, m in modules.items() for a in ("APGD-CE", "APGD-T")}
    shape = split.images.shape[1:]
    jobs |= {f"ART {name}": black_box(engine, name, threat, shape, queries) for name in ("Square", "HopSkipJump")}
    np.random.seed(0)  # noqa: NPY002 - ART draws from the global state
    for name, craft in jobs.items():
        begun, asked = time.perf_counter(), engine.queries
        rows = np.flatnonzero(robust if survivors else right)
        if len(rows):
            x, y = split.images[rows], split.labels[rows]
            candidates = threat.project(np.asarray(craft(x, y), dtype=np.float32), x)
            robust[rows] &= engine(candidates).argmax(axis=1) == y
        seconds = time.perf_counter() - begun
        print(
            f"  {name:34} {seconds:7.1f} s  {engine.queries - asked:8,} queries  robust {robust.mean():6.1%}",
            flush=True,
        )
    total = time.perf_counter() - started
    forward, backward = (sum(getattr(m, f"{way}_images") for m in modules.values()) for way in ("forward", "backward"))
    how = "survivors only" if survivors else "every image"
    print(f"peers, {how}: {line(total, forward, backward, engine.queries, float(robust.mean()))}", flush=True)


def torch_module(form: Subject) -> nn.Module:
    """Return the differentiable form."""
    assert isinstance(form.model, nn.Module)
    return form.model


def ours(forms: Sequence[Subject], split: Split, threat: ThreatModel, preset: str) -> None:
    """Run the protocol and print what it costs and leaves."""
    started = time.perf_counter()
    found = run_protocol(forms, split, PROTOCOLS[preset], threat, seed=0, batch_size=BATCH)
    total = time.perf_counter() - started
    for tier, cost in found.costs().items():
        left = next(row.left.value for row in found.tiers("engine") if row.tier == tier)
        print(f"  {tier:34} {cost['seconds']:7.1f} s  {cost['queries']:8,.0f} queries  robust {left:6.1%}")
    print(f"  {'masking audit':34} {total - found.suite.seconds:7.1f} s")
    suite, costs = found.suite, [cost for tier, cost in found.costs().items() if tier in PEER_TIERS]
    queries = sum(int(asked.sum()) for asked in suite.queries.values())
    robust = suite.robust_accuracy("engine")
    print(f"rctk {preset}: {line(total, suite.forward_passes, suite.backward_passes, queries, robust)}")
    same = [sum(cost[name] for cost in costs) for name in ("seconds", "forward_passes", "backward_passes", "queries")]
    print(f"rctk, the peers' four tiers of it: {line(same[0], *map(int, same[1:]), robust)}")
    print(found.verdict("engine"), flush=True)


def line(seconds: float, forward: int, backward: int, queries: int, robust: float) -> str:
    """Put a result into words."""
    return f"{seconds:.1f} s, {forward:,} forward, {backward:,} backward, {queries:,} queries, robust {robust:.1%}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", default="cifar10:test")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--eps", default="1/255")
    parser.add_argument("--preset", default="standard", choices=list(PROTOCOLS))
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--survivors", action="store_true")
    parser.add_argument("--both", action="store_true")
    parser.add_argument("--only", default="", choices=["", "rctk", "peers"])
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    threat = ThreatModel(eps=number(options.eps))
    with (
        open_deployment(options.bundle) as deployment,
        open_forms(deployment, ("float", "engine"), "onnxruntime") as forms,
    ):
        split = read_split(options.data, samples=options.samples, input=deployment.input)
        print(f"{deployment.name}, {len(split)} images of {split.name}, linf {options.eps}, one thread", flush=True)
        if options.only != "peers":
            parent = forms[0] if options.both else replace(forms[0], judged=False)
            ours([parent, forms[1]], split, threat, options.preset)
        if options.only != "rctk":
            peers(forms, split, threat, options.queries, survivors=False)
            if options.survivors:
                peers(forms, split, threat, options.queries, survivors=True)


if __name__ == "__main__":
    main()
