"""How strong query attacks are at equal budgets: ours against ART's, on the same images, query by query.

    python benchmarks/query_strength.py [--samples 60] [--queries 1000] [--nets digits,digits-robust] [--only zoo]

An image counts as broken at its first query inside the budget that is misclassified. For ours that is what
``query_curve`` says, which the judge confirms. For ART every single query of an image is watched and its run is cut off
at the budget; in the end the closest misclassified image that it asked about is projected into the budget and tried
too. So a contender gets credit for everything it has found, also where it would go on and lose it. ART is left out
where it cannot be imported; its settings are its defaults except where those assume larger images.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from attack_cost import Case, build_case, has_art, predict_with

from rctk.attacks import ATTACKS
from rctk.attacks.attack import Predict
from rctk.data.split import Labels
from rctk.evaluation.query_curve import NEVER, query_curve
from rctk.threat import Norm, ThreatModel
from rctk_export.input_spec import FloatNCHW, FloatNK

MARKS = (100, 300, 1000)
Contender = Callable[[Case, ThreatModel, int], npt.NDArray[np.int64]]
"""Case, threat and budget to the number of the query that broke each image, as in ``QueryCurve.broken_at``."""
EPS = {"linf": {"digits": 0.1, "digits-robust": 0.2}, "l2": {"digits": 0.5, "digits-robust": 1.0}}
FALLBACK = {"linf": 8 / 255, "l2": 0.5}


class Spent(Exception):  # noqa: N818 - it ends a run as planned
    """The image is broken, or its budget is."""


class Meter:
    """Watches the queries about one image and ends the run of whoever asks."""

    def __init__(self, predict: Predict, x: FloatNCHW, label: int, threat: ThreatModel, budget: int) -> None:
        self.broken_at = NEVER
        self._predict, self._x, self._label, self._threat, self._left = predict, x, label, threat, budget
        self._asked = 0
        self._closest, self._nearest = x, np.inf

    def __call__(self, images: FloatNCHW) -> FloatNK:
        """Return the logits of ``images``; raise :class:`Spent` when there is nothing more to find."""
        images = np.asarray(images, dtype=np.float32)
        logits = self._predict(images)
        asked, self._asked = self._asked, self._asked + len(images)
        for number in np.flatnonzero(logits.argmax(axis=1) != self._label):
            if asked + number < self._left:
                self._note(images[number : number + 1], int(asked + number + 1))
        if self.broken_at != NEVER or self._asked >= self._left:
            raise Spent
        return logits

    def _note(self, image: FloatNCHW, number: int) -> None:
        delta = image - self._x
        distance = float(np.abs(delta).max() if self._threat.norm == "linf" else np.sqrt((delta**2).sum()))
        if distance < self._nearest:
            self._closest, self._nearest = image, distance
        if np.abs(self._threat.project(image, self._x) - image).max() <= 1e-6:
            self.broken_at = min(self.broken_at, number)

    def finish(self) -> int:
        """Try the projection of the closest misclassified image as the judge would, and return when it broke."""
        if self.broken_at == NEVER and np.isfinite(self._nearest):
            logits = self._predict(self._threat.project(self._closest, self._x))
            if logits.argmax() != self._label:
                return self._left
        return int(self.broken_at)


def softmax(logits: FloatNK) -> FloatNK:
    """Return probabilities; ART's SimBA refuses anything else."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def ours(text: str, case: Case, threat: ThreatModel, queries: int) -> npt.NDArray[np.int64]:
    """Evaluate with rctk."""
    attack = ATTACKS.build(text.format(queries=queries))
    return query_curve(partial(predict_with, case.model), case.split, attack, threat, seed=0).broken_at


def theirs(
    make: Callable[[Any, ThreatModel], Any],
    case: Case,
    threat: ThreatModel,
    queries: int,
    scores: Callable[[FloatNK], FloatNK] = np.asarray,
) -> Labels:
    """Evaluate with ART, image by image, as its attacks do anyhow."""
    from art.estimators.classification import BlackBoxClassifierNeuralNetwork

    predict = partial(predict_with, case.model)
    images, labels = case.split.images, case.split.labels
    right = predict(images).argmax(axis=1) == labels
    broken_at = np.zeros(len(images), dtype=np.int64)
    np.random.seed(0)  # noqa: NPY002 - ART draws from the global state
    for row in np.flatnonzero(right):
        x, label = images[row : row + 1], int(labels[row])
        meter = Meter(predict, x, label, threat, queries)
        host = BlackBoxClassifierNeuralNetwork(
            lambda batch, meter=meter: scores(meter(batch)), x.shape[1:], 10, channels_first=True, clip_values=(0, 1)
        )
        with suppress(Spent):
            make(host, threat).generate(x, np.eye(10, dtype=np.float32)[[label]])
        broken_at[row] = meter.finish()
    return broken_at


def art_hopskipjump(host: Any, threat: ThreatModel) -> Any:
    """Make ART's HopSkipJump."""
    from art.attacks.evasion import HopSkipJump

    norm = np.inf if threat.norm == "linf" else 2
    return HopSkipJump(host, norm=norm, max_iter=1000, max_eval=10_000, init_eval=100, verbose=False)


def art_simba(basis: str, step: float, host: Any, threat: ThreatModel) -> Any:
    """Make ART's SimBA; ``step`` is a share of the budget."""
    from art.attacks.evasion import SimBA

    size = step * threat.eps
    return SimBA(host, attack=basis, max_iter=10_000, order="random", epsilon=size, freq_dim=8, verbose=False)


def art_zoo(step: float, host: Any, threat: ThreatModel) -> Any:
    """Make ART's ZOO with a learning rate of ``step`` budgets per pixel; its defaults break nothing in few queries."""
    from art.attacks.evasion import ZooAttack

    rate = step * threat.eps / (1 if threat.norm == "linf" else float(np.sqrt(np.prod(host.input_shape))))
    return ZooAttack(
        host,
        learning_rate=rate,
        max_iter=10_000,
        binary_search_steps=1,
        initial_const=100.0,
        abort_early=False,
        use_resize=False,
        use_importance=False,
        nb_parallel=64,
        variable_h=0.01,
        verbose=False,
    )


def contenders(norm: Norm) -> dict[str, dict[str, Contender]]:
    """Return, for each attack, who runs it."""
    own = {name: partial(ours, name + ":queries={queries}") for name in ("nes", "spsa", "signhunter", "square")}
    tables: dict[str, dict[str, Contender]] = {name: {"rctk": run} for name, run in own.items()}
    tables["rays" if norm == "linf" else "surfree"] = {
        "rctk": partial(ours, ("rays" if norm == "linf" else "surfree") + ":queries={queries}")
    }
    tables["hopskipjump"] = {
        "rctk": partial(ours, "hopskipjump:queries={queries}"),
        "rctk, quantum 0": partial(ours, "hopskipjump:queries={queries},quantum=0"),
        "ART": partial(theirs, art_hopskipjump),
    }
    tables["simba"] = {
        "rctk dct": partial(ours, "simba:queries={queries}"),
        "rctk pixel": partial(ours, "simba:queries={queries},basis=pixel"),
        **{
            f"ART {basis} {step}": partial(theirs, partial(art_simba, basis, step), scores=softmax)
            for basis in ("dct", "px")
            for step in (0.2, 1.0)
        },
    }
    tables["zoo"] = {
        "rctk": partial(ours, "zoo:queries={queries}"),
        **{f"ART {step}": partial(theirs, partial(art_zoo, step)) for step in (0.3, 1.0)},
    }
    return tables


def report(case: Case, threat: ThreatModel, queries: int, only: str) -> None:
    """Print one line per contender: robust accuracy after so many queries, and its time."""
    marks = [mark for mark in MARKS if mark < queries] + [queries]
    print(f"{case.name}: {len(case.split)} images, {threat.norm} {threat.eps:.3f}")
    for attack, table in contenders(threat.norm).items():
        for name, run in table.items() if only in attack else ():
            if name.startswith("ART") and not has_art():
                continue
            start = time.process_time()
            broken_at = run(case, threat, queries)
            seconds = time.process_time() - start
            robust = "  ".join(f"{mark}: {(broken_at > mark).mean():6.1%}" for mark in marks)
            print(f"  {attack:12} {name:16} robust after queries  {robust}   cpu {seconds:6.1f} s", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one table per network and norm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--nets", default="digits,digits-robust")
    parser.add_argument("--norms", default="linf,l2")
    parser.add_argument("--only", default="", help="run only attacks whose name contains this")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if not has_art():
        print("ART cannot be imported and is left out (pip install adversarial-robustness-toolbox)")
    for net in options.nets.split(","):
        case = build_case(net, options.samples)
        for norm in options.norms.split(",") if case else ():
            report(case, ThreatModel(norm=norm, eps=EPS[norm].get(net, FALLBACK[norm])), options.queries, options.only)


if __name__ == "__main__":
    main()
