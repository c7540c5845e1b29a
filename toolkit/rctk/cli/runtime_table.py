"""How an engine runs the layers of a file, as ``rctk inspect --engine`` shows it: asked of the compiled graph."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rctk.cli.console import share, table
from rctk.cli.placement_table import ONNXRUNTIME, show_placement
from rctk.machine import installed
from rctk_export.bundle import is_bundle, read_bundle
from rctk_kernels.errors import OptionError

if TYPE_CHECKING:
    from rctk_export.engines.openvino import RuntimeLayer

OPENVINO = "openvino"
SUFFIXES = (".onnx", ".xml")


def show_runtime(path: Path, target: str, engine: str, *, layers: bool, json: bool) -> None:
    """Print how many weighted layers run in int8, those that stayed float, and adds that the engine does not round.

    Args:
        path: Bundle, whose int8 files are shown, or an ``.onnx`` or ``.xml`` file.
        target: Show this int8 file of a bundle alone.
        engine: ``openvino``, or one on ONNX Runtime, of which the nodes by provider are shown.
        layers: List every weighted layer, not only those in float.
        json: Print JSON instead.
    """
    if engine.startswith(ONNXRUNTIME):
        show_placement(path, target, engine, layers=layers, json=json)
        return
    if engine != OPENVINO:
        raise OptionError(
            f"inspect asks OpenVINO and ONNX Runtime how they run a file, not {engine!r}; give --engine openvino or "
            "onnxruntime, or leave --engine away to see what ONNX Runtime keeps in float"
        )
    from rctk_export.engines.openvino import runtime_layers  # noqa: PLC0415  # only where it is asked for

    found = [(file, runtime_layers(file), unrounded_sums(file)) for file in _files(path, target)]
    version = installed([OPENVINO])
    if json:
        print(json_module.dumps([_facts(*each, version) for each in found], indent=2))
        return
    for file, rows, sums in found:
        count = sum(row.int8 for row in rows)
        print(f"{file.name} in OpenVINO {version}: {count} of {len(rows)} layers in int8 ({share(_share(rows))})")
        shown = [row for row in rows if layers or not row.int8]
        if shown and (layers or count):
            table("layers" if layers else "layers in float", ("layer", "precision", "kernel"), shown)
        if sums:
            print(f"  adds what a convolution gives without the rounding that the file asks for: {', '.join(sums)}")
            print(
                "  so engine and twin differ there; `rctk export --target openvino` writes a file that means the same"
            )


def unrounded_sums(path: Path) -> list[str]:
    """Return the residual adds of an ``.onnx`` file in which OpenVINO leaves out a rounding; see the linter's rule."""
    if path.suffix != ".onnx":
        return []
    from rctk_export.lint import lint  # noqa: PLC0415  # an .xml file is shown where onnx is not installed
    from rctk_export.onnx_files import load_onnx  # noqa: PLC0415

    return [finding.node for finding in lint(load_onnx(path), OPENVINO) if finding.rule == "rounded-sum"]


def _files(path: Path, target: str) -> Iterator[Path]:
    if is_bundle(path) or path.is_dir():
        bundle = read_bundle(path)
        wanted = (target,) if target else bundle.targets()
        yield from (bundle.source("int8", name).path for name in wanted)
    elif path.suffix not in SUFFIXES:
        raise OptionError(f"--engine openvino looks into bundles, .onnx and .xml files, and {path} is none")
    elif target:
        raise OptionError(f"--target chooses a file of a bundle; {path.name} is a bare file")
    else:
        yield path


def _share(rows: tuple[RuntimeLayer, ...]) -> float | None:
    return sum(row.int8 for row in rows) / len(rows) if rows else None


def _facts(path: Path, rows: tuple[RuntimeLayer, ...], sums: list[str], version: str) -> dict[str, object]:
    return {
        "file": path.name,
        "engine": OPENVINO,
        "version": version,
        "int8_share": _share(rows),
        "layers": [{**row._asdict(), "int8": row.int8} for row in rows],
        "unrounded_sums": sums,
    }
