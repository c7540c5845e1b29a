"""A model file of torch on the screen: what it costs and what in it is zero."""

from __future__ import annotations

import json as json_module
from pathlib import Path

from rctk.checkpoint import LoadedModel, load_model
from rctk.cli.console import share, show_steps, size, table
from rctk.cli.flags import ModelFlags
from rctk.prune.cost import Cost, cost, tensors


def show_checkpoint(path: Path, flags: ModelFlags, *, layers: bool, json: bool) -> None:
    """Print parameters, multiplications, bytes and zeros.

    Args:
        path: The model file.
        flags: How to read it.
        layers: List every trained tensor.
        json: Print all of it as JSON instead.
    """
    loaded = load_model(
        path, arch=flags.arch, input=flags.spec(), classes=flags.classes, trust_pickle=flags.trust_pickle
    )
    found, rows = cost(loaded.module, loaded.input), tensors(loaded.module)
    if json:
        facts = {"sha256": loaded.sha256, "form": loaded.form, "arch": loaded.arch, "extra": loaded.extra}
        listed = [row._asdict() for row in rows]
        print(json_module.dumps({**facts, **found.as_dict(), "tensors": listed}, indent=2, default=str))
        return
    _head(path, loaded, found)
    if layers:
        cells = [
            (
                row.name,
                "x".join(map(str, row.shape)),
                f"{row.parameters:,}",
                share(row.zeros),
                _pattern(row.two_of_four),
            )
            for row in rows
        ]
        table("trained tensors", ("tensor", "shape", "parameters", "zeros", "pattern"), cells)


def _head(path: Path, loaded: LoadedModel, found: Cost) -> None:
    shape = "x".join(map(str, loaded.input.shape))
    print(f"{path.name}  {loaded.sha256[:16]}")
    print(f"{loaded.form} of {loaded.arch or 'a captured graph'}: images {shape}, {len(loaded.classes)} classes")
    show_steps(loaded.extra.get("recipe", ()))
    rows = [
        ("parameters", f"{found.parameters:,}"),
        ("zeros among them", share(found.zeros)),
        ("multiplications", f"{found.macs:,}"),
        ("tensors", size(found.size_bytes)),
    ]
    table("cost", ("what", "value"), rows)


def _pattern(two_of_four: bool) -> str:  # one cell of a row
    return "2:4" if two_of_four else "-"
