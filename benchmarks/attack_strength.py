"""Robust accuracy of our attacks beside those of torchattacks, Foolbox, ART and pyautoattack, on the same images.

    python benchmarks/attack_strength.py [--nets cnn-a,resnet-4b] [--attacks fgsm,autoattack] [--samples 100]

Nets are those of ``attack_cost.py``: ``digits`` and ``digits-robust`` are trained here, the others are read from the
folder named by RCTK_MODELS. All contenders attack the same images with the same budget; candidates are projected into
it and classified by one function, and passes are counted by a wrapper around the model, the clean and the last pass
included. Query attacks on scores or labels (hopskipjump, simba, zoo) are those of ``query_strength.py`` and watched
query by query. A library that cannot be imported is left out with a line. ``--out`` appends one JSON line per number.

The last line of a row says whether ours is at most 0.5 points above the strongest peer in no more passes than it, but
for the two looks that our judge takes at candidates and theirs does without.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import query_strength
import torch
from attack_cost import Case, build_case, predict_with
from strength_peers import PEERS, Peer, available

from rctk.attacks import ATTACKS
from rctk.data.split import Labels
from rctk.evaluation.counted_model import CountedModel
from rctk.evaluation.judge import evaluate
from rctk.threat import ThreatModel
from rctk_export.input_spec import FloatNCHW

BATCH = 128
POINTS, LOOKS = 0.5, 2
EPS = {
    "linf": {"digits": 0.1, "digits-robust": 0.15, "mnist-adv": 0.3, "pgd-madry": 0.3, "mnist-clean": 0.1,
             "cnn-a": 2 / 255, "resnet-4b": 2 / 255, "wide-kw": 2 / 255, "resnet20": 1 / 255},
    "l2": {"digits": 0.5, "digits-robust": 1.0, "mnist-adv": 2.0, "pgd-madry": 2.0, "mnist-clean": 1.0,
           "cnn-a": 0.25, "resnet-4b": 0.25, "wide-kw": 0.25, "resnet20": 0.1},
}  # fmt: skip
QUERY = ("hopskipjump", "simba", "zoo")


class Row(NamedTuple):
    """One comparison.

    Attributes:
        ours: Texts of our attacks; the row holds where one of them holds.
        norm: Of the budget.
        eps: Radius, in place of the net's own.
    """

    ours: tuple[str, ...]
    norm: str = "linf"
    eps: float | None = None


ROWS = {
    "fgsm": Row(("fgsm",)),
    "bim": Row(("bim",)),
    "pgd linf": Row(("pgd",)),
    "pgd l2": Row(("pgd",), "l2"),
    "mifgsm": Row(("mifgsm",)),
    "apgd-ce linf": Row(("apgd-ce",)),
    "apgd-ce l2": Row(("apgd-ce", "apgd-ce:steps=75,restarts=2"), "l2"),
    "apgd-dlr": Row(("apgd-dlr", "apgd-dlr:steps=75,restarts=2", "apgd-dlr:steps=50,restarts=3")),
    "apgd-t": Row(("apgd-t",)),
    "fab-t": Row(("fab-t",)),
    "square linf": Row(("square",)),
    "square l2": Row(("square",), "l2"),
    "cw-l2": Row(("cw-l2:steps=200,searches=5", "cw-l2:steps=200,searches=9"), "l2"),
    "cw-linf": Row(("cw-linf:steps=500",)),
    "deepfool": Row(("deepfool",), "l2"),
    "ddn": Row(("ddn",), "l2"),
    "fmn l2": Row(("fmn",), "l2"),
    "fmn linf": Row(("fmn",)),
    "jsma": Row(("jsma:steps=19,targets=3",), eps=1.0),
    "autoattack": Row(("autoattack", "autoattack:version=economy")),
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one contender did to one net.

    Attributes:
        contender: ``rctk`` or the name of the peer.
        robust: Images that were right and stayed right.
        forward: Forward passes per image.
        backward: Backward passes per image.
        seconds: Process CPU time.
    """

    contender: str
    robust: int
    forward: float
    backward: float
    seconds: float


def measured(contender: str, case: Case, run: Callable[[CountedModel], int]) -> Outcome:
    """Let a contender attack the counted model."""
    model, start = CountedModel(case.model, BATCH), time.process_time()
    robust, count = run(model), len(case.split)
    seconds = round(time.process_time() - start, 1)
    forward, backward = round(model.forward_images / count, 1), round(model.backward_images / count, 1)
    return Outcome(contender=contender, robust=robust, forward=forward, backward=backward, seconds=seconds)


def ours(text: str, case: Case, threat: ThreatModel, model: CountedModel) -> int:
    """Evaluate with rctk and return how many images stay right."""
    predict = partial(predict_with, model)
    result = evaluate(predict, case.split, ATTACKS.build(text), threat, seed=0, batch_size=BATCH, model=model)
    return int(result.robust.sum())


def theirs(peer: Peer, case: Case, threat: ThreatModel, model: CountedModel) -> int:
    """Let a peer attack batch by batch and return how many images stay right."""
    robust = 0
    for number, (images, labels) in enumerate(case.split.batches(BATCH)):
        found = peer(model, torch.from_numpy(images), torch.from_numpy(labels), threat, number)
        robust += still_right(model, images, labels, threat.project(_finite(found, images), images))
    return robust


def still_right(model: CountedModel, images: FloatNCHW, labels: Labels, found: FloatNCHW) -> int:
    """Count the images that are right as they are and as they were found."""
    right = [predict_with(model, batch).argmax(axis=1) == labels for batch in (images, found)]
    return int((right[0] & right[1]).sum())


def _finite(found: torch.Tensor, images: FloatNCHW) -> FloatNCHW:
    candidates = found.detach().numpy().astype(np.float32)
    return np.where(np.isfinite(candidates).all(axis=(1, 2, 3), keepdims=True), candidates, images)


Plan: TypeAlias = tuple[ThreatModel, dict[str, Callable[[], Outcome]]]
"""The budget of a row, and its contenders."""


def gradient_row(name: str, case: Case, eps: float | None) -> Plan:
    """Plan ours and all peers of a row, with ``eps`` in place of the radius of row or net."""
    row = ROWS[name]
    threat = ThreatModel(norm=row.norm, eps=eps or row.eps or EPS[row.norm][case.name])
    runs = {f"rctk {text}": partial(ours, text, case, threat) for text in row.ours}
    runs |= {peer: partial(theirs, run, case, threat) for peer, run in PEERS[name].items()}
    return threat, {contender: partial(measured, contender, case, run) for contender, run in runs.items()}


def query_row(name: str, case: Case, eps: float | None, queries: int) -> Plan:
    """Plan a query attack and ART's, with ``eps`` in place of the net's radius."""
    threat = ThreatModel(norm="l2", eps=eps or EPS["l2"][case.name])
    table = query_strength.contenders(threat.norm)[name]
    return threat, {
        contender: partial(watched, contender, partial(run, case, threat, queries), queries)
        for contender, run in table.items()
    }


def watched(contender: str, run: Callable[[], Labels], queries: int) -> Outcome:
    """Run a query attack; passes are queries until an image is broken, or all of them."""
    start = time.process_time()
    broken_at = run()
    return Outcome(
        contender=contender,
        robust=int((broken_at > queries).sum()),
        forward=round(float(np.minimum(broken_at, queries).mean()), 1),
        backward=0.0,
        seconds=round(time.process_time() - start, 1),
    )


def verdict(outcomes: Sequence[Outcome], samples: int) -> str:
    """Say whether one of ours holds against the strongest peer: the strongest of those that do, else the strongest."""
    peers = [outcome for outcome in outcomes if not outcome.contender.startswith("rctk")]
    if not peers:
        return "no peer"
    best = min(peers, key=lambda outcome: (outcome.robust, spent(outcome)))

    def holds(outcome: Outcome) -> bool:
        points = 100 * (outcome.robust - best.robust) / samples
        return points <= POINTS and spent(outcome) <= spent(best) + LOOKS

    mine = [
        outcome for outcome in outcomes if outcome.contender.startswith("rctk") and "economy" not in outcome.contender
    ]
    chosen = min(mine, key=lambda outcome: (not holds(outcome), outcome.robust))
    points, share = 100 * (chosen.robust - best.robust) / samples, spent(chosen) / spent(best)
    return (
        f"{'holds' if holds(chosen) else 'DOES NOT HOLD'}: {chosen.contender} {points:+.1f} points against "
        f"{best.contender}, {share:.2f} of its passes"
    )


def spent(outcome: Outcome) -> float:
    """Return all passes per image."""
    return outcome.forward + outcome.backward


def report(name: str, case: Case, plan: Plan, first: int, out: Path | None) -> None:
    """Run a row, print each outcome when it is there, and append its JSON line."""
    (threat, runs), samples, outcomes = plan, len(case.split), []
    shared = {"net": case.name, "attack": name, "threat": asdict(threat), "first": first, "samples": samples}
    for contender, run in runs.items():
        if not contender.startswith("rctk") and not available(contender.split()[0]):
            print(f"  {name:13} {contender:34} cannot be imported and is left out")
            continue
        outcomes.append(outcome := run())
        print(
            f"  {name:13} {contender:34} robust {outcome.robust:4} = {outcome.robust / samples:6.1%}  "
            f"forward {outcome.forward:8,.1f}  backward {outcome.backward:7,.1f}  cpu {outcome.seconds:6.1f} s",
            flush=True,
        )
        if out is not None:
            with out.open("a") as file:
                file.write(json.dumps(shared | asdict(outcome)) + "\n")
    print(f"  {name:13} {verdict(outcomes, samples)}", flush=True)


def build(name: str, first: int, samples: int) -> Case | None:
    """Return a net with the images ``first`` to ``first + samples - 1`` of its test set."""
    case = build_case(name, first + samples)
    if case is None:
        return None
    rows = np.arange(first, len(case.split))
    return Case(name=name, module=case.module, spec=case.spec, split=case.split.take(rows), eps=case.eps)


def fraction(text: str | None) -> float | None:
    """Read ``0.5/255`` or ``0.002``."""
    if text is None:
        return None
    above, _, below = text.partition("/")
    return float(above) / float(below or 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one table per net."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default="digits,digits-robust")
    parser.add_argument("--attacks", default=",".join([*ROWS, *QUERY]), help="names of rows, or how they begin")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="first image of the test set, to cut a long run")
    parser.add_argument("--eps", help="radius such as 0.5/255, in place of the net's own")
    parser.add_argument("--queries", type=int, default=500, help="budget of the query attacks")
    parser.add_argument("--out", type=Path, default=None, help="file that JSON lines are appended to")
    options = parser.parse_args(arguments)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    wanted, eps = options.attacks.split(","), fraction(options.eps)
    for net in options.nets.split(","):
        case = build(net, options.first, options.samples)
        if case is None:
            continue
        print(f"{net}: images {options.first} to {options.first + len(case.split) - 1} of {case.split.name}")
        for name in [*ROWS, *QUERY]:
            if any(name.startswith(word) for word in wanted):
                query = name in QUERY
                plan = query_row(name, case, eps, options.queries) if query else gradient_row(name, case, eps)
                report(name, case, plan, options.first, options.out)


if __name__ == "__main__":
    main()
