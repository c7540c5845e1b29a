"""Int8 bundles of the published networks, and the budget that each is attacked with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from architectures import NETS

from rctk.cli.main import run

EPS: Mapping[str, str] = {
    "mnist-clean": "0.1",
    "mnist-adv": "0.3",
    "pgd-madry": "0.3",
    "dns-dense": "0.1",
    "dns-sparse": "0.1",
}
"""Robust networks get what they were trained for, and plain ones of the same data as much as leaves survivors."""
USUAL_EPS = "2/255"
ROBUST = ("cnn-a", "wide-kw", "resnet-4b", "mnist-adv", "pgd-madry")
"""Networks that were trained to be robust."""


def eps_of(name: str) -> str:
    """Return the linf budget of a network as the command line takes it."""
    return EPS.get(name, USUAL_EPS)


def models_folder() -> Path:
    """Return the folder of published weights; ends the program with one line where there is none."""
    folder = os.environ.get("RCTK_MODELS")
    if not folder or not os.environ.get("RCTK_DATA"):
        raise SystemExit("set RCTK_MODELS and RCTK_DATA to the folders of models and data sets")
    return Path(folder)


def bundle_of(name: str, folder: Path, target: str = "cpu", flags: Sequence[str] = ()) -> Path:
    """Return the bundle of a network below ``folder``; it is exported, with further flags, where it is not there."""
    path, net = folder / f"{name}-{target}", NETS[name]
    if path.is_dir():
        return path
    command = ["export", str(models_folder() / net.file), "--arch", net.arch, "--target", target, "-o", str(path)]
    command += ["--input", "x".join(map(str, net.input.shape)), "--records", str(folder)]
    command += ["--calibration", f"{net.data.partition(':')[0]}:train"]
    for flag, values in (("--mean", net.input.mean), ("--std", net.input.std)):
        command += [flag, ",".join(map(repr, values))] if values else []
    if run([*command, *flags]):
        raise SystemExit(f"{name} was not exported")
    return path
