"""The sensitivity table of ``rctk inspect``."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict, dataclass
from pathlib import Path

from cyclopts import Parameter

from rctk.cli.console import Bars, table
from rctk.cli.flags import Fraction, Switch, Whole
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SensitivityFlags:
    """What ``--sensitivity`` measures on."""

    sensitivity: Switch = False
    """Put each layer of a bundle alone into integers and show what that does to clean and robust accuracy."""
    data: str = ""
    """Labelled images for --sensitivity, such as cifar10:test."""
    samples: Whole = 256
    """Use so many of them, drawn with classes in proportion."""
    eps: Fraction = ThreatModel.eps
    """Budget of its adversarial images, linf; they are made against the float file and replayed."""
    seed: Whole = 0
    """Draws images and the start of the attack."""

    def check(self) -> None:
        """Refuse the others without the first."""
        if not self.sensitivity and self != SensitivityFlags():
            raise OptionError("--data, --samples, --eps and --seed are for --sensitivity; add it, or leave them out")


def show_sensitivity(path: Path, target: str, flags: SensitivityFlags, *, json: bool) -> None:
    """Print one row per layer, the one that changes most first."""
    from rctk.data import read_split  # noqa: PLC0415  # `rctk inspect` of a plan runs without torch
    from rctk.quantize.of_bundle import bundle_sensitivity  # noqa: PLC0415
    from rctk_export.bundle import read_bundle  # noqa: PLC0415

    if not flags.data:
        raise OptionError("--sensitivity needs labelled images; add --data SET:test")
    bundle = read_bundle(path)
    chosen = target or next(file.target for file in bundle.files if file.role == "int8")
    split = read_split(flags.data, samples=flags.samples, seed=flags.seed, input=bundle.input)
    effects = bundle_sensitivity(bundle, chosen, split, eps=flags.eps, seed=flags.seed, progress=Bars())
    if json:
        print(json_module.dumps([asdict(effect) for effect in effects], indent=2))
        return
    rows = [
        (e.layer, e.bits, f"{100 * e.clean_drop:+.2f}", f"{100 * e.robust_drop:+.2f}", f"{e.divergence:.2e}")
        for e in sorted(effects, key=lambda effect: -effect.divergence)
    ]
    columns = ("layer alone in integers", "bits", "clean drop, points", "robust drop, points", "KL, nats")
    table(f"sensitivity of {chosen} on {len(split)} images of {split.name}, eps {flags.eps:.4g}", columns, rows)
    print("next: rctk export --keep-float LAYER, or rctk export --max-drop 0.005")
