"""Which tier of the deployed protocol matters, and how far float evaluation misleads, on published networks.

    RCTK_MODELS=... RCTK_DATA=... python benchmarks/findings.py --out FOLDER [--nets cnn-a] [--samples 1000]
        [--protocol standard] [--eps 8/255] [--target cpu]

Each network is exported once below FOLDER and attacked by `rctk attack --protocol`. A run that was stopped goes on
when it is started again, and a network whose record is there is not run again; the table shows all that are.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from architectures import NETS
from bundles import bundle_of, eps_of

from rctk.cli.console import table
from rctk.cli.main import run
from rctk.evaluation.protocol import TIERS
from rctk.records import Record, read_records
from rctk.report.words import percent, percent_between
from rctk_export.registry import number


def finished(folder: Path, name: str, options: argparse.Namespace) -> dict[str, Record]:
    """Return the newest record of each form of a network under the same protocol, budget and number of images."""
    if not (folder / "records.jsonl").exists():
        return {}
    eps, found = number(options.eps or eps_of(name)), {}
    for record in read_records(folder / "records.jsonl"):
        values, settings = record.values, record.settings
        same = (
            record.kind == "attack"
            and record.subject.get("name") == f"{name}-{options.target}"
            and settings.get("protocol") == options.protocol
            and abs(settings.get("eps", 0) - eps) < 1e-9
            and values.get("samples") in {options.samples, None}
        )
        if same:
            found["float" if record.subject["role"] == "float" else "engine"] = record
    return found


def attack(folder: Path, name: str, options: argparse.Namespace) -> None:
    """Run the protocol on one network; its records are appended to those in ``folder``."""
    bundle = bundle_of(name, folder, options.target)
    command = ["attack", str(bundle), "--data", NETS[name].data, "--samples", str(options.samples)]
    command += ["--protocol", options.protocol, "--eps", options.eps or eps_of(name), "--out", str(folder)]
    if run(command):
        raise SystemExit(f"{name}: the protocol did not end")


def row(name: str, side: str, record: Record, eps: str) -> list[str]:
    """Return one line of the table: what is left after each tier, and what the audit says."""
    values: Mapping[str, Any] = record.values
    held = values["protocol"]
    cells = [name, side, eps, str(values["samples"]), percent(values["clean_accuracy"])]
    for tier in held["tiers"]:
        left = tier["left"]
        shown = percent_between(left["hits"] / left["samples"], left["low"], left["high"])
        cells.append(f"{shown} (-{tier['broken']})" if tier["ran"] else "not run")
    return [*cells, held["audit"]["verdict"], f"{values['seconds']:,.0f}"]


def misled(forms: Mapping[str, Record]) -> str:
    """Say how far the float model's white-box number is from what the engine withstands."""
    first, last = (forms[side].values["protocol"]["tiers"] for side in ("float", "engine"))
    seen, replayed, true = (t["left"]["hits"] / t["left"]["samples"] for t in (first[0], last[0], last[-1]))
    return (
        f"float white-box says {percent(seen)}, its images replayed on the engine {percent(replayed)}, the engine's "
        f"worst case is {percent(true)}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of bundles, journals and records")
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--protocol", default="standard", choices=["quick", "standard", "full"])
    parser.add_argument("--eps", default="", help="one budget for all; by default that of each network")
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--table-only", action="store_true")
    options = parser.parse_args(arguments)
    names, rows, sentences = options.nets.split(","), [], []
    for name in names:
        if not options.table_only and len(finished(options.out, name, options)) < 2:
            attack(options.out, name, options)
        forms = finished(options.out, name, options)
        rows += [row(name, side, record, options.eps or eps_of(name)) for side, record in sorted(forms.items())]
        if len(forms) == 2:
            sentences.append(f"{name}: {misled(forms)}")
    columns = ("net", "form", "eps", "images", "clean", *(f"after {tier}" for tier in TIERS), "audit", "s")
    table(f"{options.protocol}: robust accuracy left after each tier (broken first by it)", columns, rows)
    print("\n".join(sentences))


if __name__ == "__main__":
    main()
