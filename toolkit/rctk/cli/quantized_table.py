"""A quantized checkpoint on the screen: its steps, and which layer has which number format."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rctk.cli.console import show_steps, table
from rctk.compress.step import Draft
from rctk.exporting.quantized_checkpoint import QuantizedModel, read_quantized
from rctk.quantize.layers import WeightLayer, weight_layers
from rctk_export.graph import Graph
from rctk_export.quantize.plan import leader


class FormatRow(NamedTuple):
    """How one layer is stored and fed.

    Attributes:
        layer: Its name.
        shape: Of its weight.
        weight_bits: Width of a code; of decided codes, unless it was chosen, the width that holds them all.
        weights: ``codes`` or ``scales`` where a step has decided them, else ``rounded``: by the export.
        input: Name of the tensor whose values it reads.
        input_bits: Width of that tensor's codes; None where it stays float or has its grid at run time.
        input_scale: Of a grid that a step has decided, else None: calibrated by the export.
    """

    layer: str
    shape: tuple[int, ...]
    weight_bits: int
    weights: str
    input: str
    input_bits: int | None
    input_scale: float | None


def show_quantized(path: Path, *, layers: bool, json: bool) -> None:
    """Print where the checkpoint comes from, its steps and the formats that they have decided."""
    model = read_quantized(path)
    rows, draft = _rows(model), model.draft
    origin = model.parent.origin
    if json:
        facts = {"sha256": model.sha256, "origin": origin, "form": draft.form, "calibrator": draft.calibrator}
        listed = [row._asdict() for row in rows]
        more = {"keep_float": list(draft.keep_float), "formats": draft.formats.facts(), "layers": listed}
        print(json_module.dumps({**facts, **more, "facts": draft.facts}, indent=2, default=str))
        return
    shape = "x".join(map(str, model.input.shape))
    print(f"{path.name}  {model.sha256[:16]}")
    print(f"quantized checkpoint of {origin.get('source')}: images {shape}, {len(model.parent.classes)} classes")
    show_steps(origin.get("recipe", ()))
    widths = ", ".join(map(str, sorted({row.weight_bits for row in rows})))
    decided = sum(row.weights == "codes" for row in rows)
    print(
        f"{draft.form}: {len(rows)} layers, weights of {widths} bits, {decided} with decided codes, "
        f"{len(draft.formats.steps)} decided activation grids; the rest by {draft.calibrator} on export"
    )
    if draft.keep_float:
        print(f"float: {', '.join(draft.keep_float)}")
    if layers:
        columns = [name.replace("_", " ") for name in FormatRow._fields]
        table("number formats", columns, [[_cell(value) for value in row] for row in rows])


def _rows(model: QuantizedModel) -> list[FormatRow]:
    graph = Graph(model.draft.model)
    producers, _ = graph.index()
    return [_row(model.draft, layer, leader(graph, producers, layer.input)) for layer in weight_layers(model.draft)]


def _row(draft: Draft, layer: WeightLayer, tensor: str) -> FormatRow:
    given, grid = draft.formats.weights.get(layer.name), draft.formats.steps.get(tensor)
    codes = None if given is None else given.codes
    input_bits = draft.formats.of_tensor(tensor) if draft.form == "static" else None
    chosen = layer.name in draft.formats.layer_bits
    return FormatRow(
        layer=layer.name,
        shape=layer.weight.shape,
        weight_bits=draft.formats.of_layer(layer.name) if chosen or codes is None else code_width(codes),
        weights="rounded" if given is None else "scales" if codes is None else "codes",
        input=tensor,
        input_bits=(grid.high - grid.low).bit_length() if grid else input_bits,
        input_scale=grid.scale if grid else None,
    )


def code_width(codes: npt.NDArray[np.int8]) -> int:
    """Return the bits of a number with a sign that hold all of ``codes``.

    Example:
        >>> code_width(np.array([-2, 1], np.int8)), code_width(np.array([-1, 7], np.int8))
        (2, 4)
    """
    wide = codes.astype(np.int64)
    return max(int(wide.max(initial=0)).bit_length(), int((-wide - 1).max(initial=0)).bit_length()) + 1


def _cell(value: object) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
