"""What the masking audit says about planted cases and about published networks, check by check.

    RCTK_MODELS=... RCTK_DATA=... python benchmarks/audit_verdicts.py [--samples 128] [--nets cnn-a,resnet20]

Planted cases are those of ``tests/toolkit/audit/planted.py``, on digits. Of every network the float form and the int8
engine are audited. ``.`` passes, ``s`` is suspicious, ``F`` fails, a blank did not run. Honest networks must not fail.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from architectures import NETS
from bundles import ROBUST, bundle_of, eps_of
from torch import nn

from rctk.audit import CHECKS, Audit, Examined, audit
from rctk.data import read_split
from rctk.data.split import Split
from rctk.deployment import open_deployment
from rctk.evaluation.module_predict import ModulePredict
from rctk.forms import open_forms
from rctk.threat import ThreatModel
from rctk_export.registry import number

MARKS = {"pass": ".", "suspicious": "s", "fails": "F", "not run": " "}
PLANTED = Path(__file__).resolve().parents[1] / "tests" / "toolkit" / "audit" / "planted.py"


def builders() -> Any:
    """Return the planted cases that the tests use."""
    spec = importlib.util.spec_from_file_location("planted", PLANTED)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def on_digits(module: nn.Module, split: Split, eps: float) -> Audit:
    """Audit a network for digits."""
    threat = ThreatModel(eps=eps)
    return audit(Examined(name="float", predict=ModulePredict(module), model=module, split=split, threat=threat))


def planted_cases() -> Iterator[tuple[str, Audit]]:
    """Audit honest nets for digits and every planted case."""
    made, split = builders(), read_split("digits:test", samples=150)
    for name, make in made.HONEST.items():
        yield f"honest: digits, {name}", on_digits(make(), split, made.EPS)
    base = made.plain()
    for name, (wrap, _) in made.WRAPPED.items():
        torch.manual_seed(0)  # random shifts draw from the global state
        yield f"planted: {name}", on_digits(wrap(base), split, made.EPS)
    for name, (make, _) in made.TRAINED.items():
        yield f"planted: {name}", on_digits(make(), split, made.EPS)


def published(name: str, folder: Path, samples: int) -> Iterator[tuple[str, Audit]]:
    """Audit float form and engine of a published network."""
    net, threat = NETS[name], ThreatModel(eps=number(eps_of(name)))
    split = read_split(net.data, samples=samples)
    with (
        open_deployment(bundle_of(name, folder)) as deployment,
        open_forms(deployment, ("float", "engine"), "onnxruntime") as forms,
    ):
        parent = None
        for form in forms:
            examined = Examined(
                name=form.name,
                predict=form.predict,
                model=form.model,  # type: ignore[arg-type]  # a torch module
                split=split,
                threat=threat,
                parent=parent,
            )
            parent = parent or examined
            kind = "trained robust" if name in ROBUST else "plain"
            yield f"honest, {kind}: {name} {form.name}, eps {eps_of(name)}", audit(examined)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line per case, then what failed or is suspicious, in words."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--nets", default=",".join(NETS), help="published networks; empty for none")
    parser.add_argument("--bundles", type=Path, help="folder of bundles; what is missing is exported there")
    parser.add_argument("--no-planted", action="store_true")
    options = parser.parse_args(arguments)
    print("checks: " + ", ".join(f"{index} {check}" for index, check in enumerate(CHECKS, start=1)))
    found: list[tuple[str, Audit]] = []
    with tempfile.TemporaryDirectory(prefix="rctk-") as scratch:
        folder = options.bundles or Path(scratch)
        sources = [] if options.no_planted else [planted_cases()]
        sources += [published(name, folder, options.samples) for name in options.nets.split(",") if name]
        for source in sources:
            started = time.perf_counter()
            for case, verdicts in source:
                row = " ".join(f"{index}{MARKS[r.verdict]}" for index, r in enumerate(verdicts.results, start=1))
                seconds = time.perf_counter() - started
                print(f"{verdicts.verdict:10} {row}  {case} ({verdicts.samples} images, {seconds:.0f} s)", flush=True)
                found.append((case, verdicts))
                started = time.perf_counter()
    for case, verdicts in found:
        for result in verdicts.results:
            if result.verdict in {"fails", "suspicious"}:
                print(f"{case}: {result.check} {result.verdict}: {result.found} ({result.limits})")


if __name__ == "__main__":
    main()
