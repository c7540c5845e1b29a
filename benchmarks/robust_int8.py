"""Whether int8 keeps the robustness of adversarially trained networks: calibrated engines, and trained ones.

    RCTK_MODELS=... RCTK_DATA=... python benchmarks/robust_int8.py --out FOLDER [--nets mnist-adv,cnn-a] [--samples 500]
        [--ways ptq,at-qat] [--images 3000] [--epochs 2] [--lr 0.0005] [--steps 10] [--step-size 0.25]
        [--protocol quick]

ptq: `rctk export` with its defaults. at-qat: with one step more, quantization-aware training of 8 bits from the
published weights, whose inner attack (the network's own budget) sees the quantized forward pass. Both are
gated by `rctk compare --protocol`, which attacks float parent and engine on the same images, tries every candidate on
both and audits them. The float parent of a trained engine is the published network. A run that was stopped goes on, and
what is there is not run again; the table shows all that is.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from architectures import NETS
from bundles import bundle_of, eps_of

from rctk.cli.console import table
from rctk.cli.main import run
from rctk.records import Record, read_records
from rctk.report.words import percent, percent_between

UNDECIDED = 3
"""Exit code of a gate that needs more images."""


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of bundles, journals and records")
    parser.add_argument("--nets", default="mnist-adv,cnn-a")
    parser.add_argument("--ways", default="ptq,at-qat")
    parser.add_argument("--samples", type=int, default=500, help="test images")
    parser.add_argument("--images", type=int, default=3000, help="training images of at-qat")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--lr", type=float, default=0.0005)
    parser.add_argument("--steps", type=int, default=10, help="of the inner attack")
    parser.add_argument("--step-size", type=float, default=0.25, help="of the inner attack, a share of its budget")
    parser.add_argument("--protocol", default="quick", choices=["quick", "standard", "full"])
    parser.add_argument("--max-drop", type=float, default=0.01)
    parser.add_argument("--target", default="cpu", choices=["cpu"])
    parser.add_argument("--table-only", action="store_true")
    options = parser.parse_args()
    rows = []
    for name in options.nets.split(","):
        for way in options.ways.split(","):
            if not options.table_only and newest(name, way, options) is None:
                gate(name, way, options)
            if record := newest(name, way, options):
                rows.append(row(name, way, record))
    columns = (
        "net",
        "way",
        "eps",
        "images",
        "clean: float",
        "engine",
        "robust: float",
        "engine",
        "difference",
        "audit",
    )
    table(f"{options.protocol} protocol: worst case of all tiers, 95 %", (*columns, "gate"), rows)


def training(name: str, options: argparse.Namespace) -> list[str]:
    """Return the flags of `rctk export` that train the quantized network."""
    loop = f"epochs={options.epochs},lr={options.lr},batch_size=64,weight_decay=0,bn=folded,target={options.target}"
    attack = f"train.qat_at:eps={eps_of(name)};steps={options.steps};step_size={options.step_size}"
    return ["--samples", str(options.images), "--step", f"quant.lsq:{loop},objective={attack}"]


def gate(name: str, way: str, options: argparse.Namespace) -> None:
    """Export where needed, and compare; the record is appended to those of the way."""
    folder: Path = options.out / way
    bundle = bundle_of(name, folder, options.target, training(name, options) if way == "at-qat" else ())
    command = ["compare", str(bundle), "--data", NETS[name].data, "--samples", str(options.samples)]
    command += ["--protocol", options.protocol, "--eps", eps_of(name), "--max-drop", str(options.max_drop)]
    if run([*command, "--records", str(folder)]) not in {0, 1, UNDECIDED}:
        raise SystemExit(f"{name}, {way}: the gate did not end")


def newest(name: str, way: str, options: argparse.Namespace) -> Record | None:
    """Return the newest comparison of a network under the same protocol and number of images."""
    if not (options.out / way / "records.jsonl").exists():
        return None
    found = None
    for record in read_records(options.out / way / "records.jsonl"):
        same = (
            record.kind == "compare"
            and record.subject.get("name") == f"{name}-{options.target}"
            and record.settings.get("protocol") == options.protocol
            and record.settings.get("samples") == options.samples
        )
        found = record if same else found
    return found


def row(name: str, way: str, record: Record) -> list[str]:
    """Return one line of the table."""
    values: dict[str, Any] = dict(record.values)
    clean, robust = values["clean"], values["robust"]
    cells = [name, way, eps_of(name), str(values["samples"])]
    cells += [percent(clean["float_accuracy"]), percent(clean["engine_accuracy"])]
    for side in ("float", "engine"):
        cells.append(percent_between(robust[f"{side}_accuracy"], robust[f"{side}_low"], robust[f"{side}_high"]))
    points = (100 * robust[f"difference{end}"] for end in ("", "_low", "_high"))
    cells.append("{:+.1f} [{:+.1f}, {:+.1f}]".format(*points))
    audits = (values["protocol"][side]["audit"]["verdict"] for side in ("float", "engine"))
    return [*cells, " / ".join(audits), values["outcome"]]


if __name__ == "__main__":
    main()
