"""The draft that a bundle's int8 file came from, read back from its manifest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rctk.compress.step import Draft
from rctk.data.split import Split
from rctk.exporting.files import MIRROR
from rctk.progress import Progress
from rctk.quantize.layers import weight_layers
from rctk.quantize.sensitivity import LayerEffect, Probe, sensitivity
from rctk_export.bundle import Bundle
from rctk_export.onnx_files import load_onnx
from rctk_export.quantize.formats import Formats
from rctk_kernels.errors import BundleError

KEEP_WEIGHTS = {"quant.ptq_static8", "quant.layer_bits", "quant.mixed"}
"""Steps behind which an int8 file still follows from the float file beside it."""


def draft_of_bundle(bundle: Bundle, target: str) -> Draft:
    """Return float graph, widths and ranges of one int8 file; every layer that a planner can place may be int8 again.

    Raises:
        BundleError: The manifest holds no ranges, or a step has changed the weights that were quantized.
    """
    facts = bundle.file("int8", target).facts
    ranges = {name: (float(low), float(high)) for name, (low, high) in facts.get("ranges", {}).items()}
    widths = facts.get("formats", {})
    formats = Formats(
        weight_bits=widths.get("weight_bits", 8),
        activation_bits=widths.get("activation_bits", 8),
        per_channel=widths.get("weights", "per-channel") == "per-channel",
        layer_bits=widths.get("layer_bits", {}),
        tensor_bits=widths.get("tensor_bits", {}),
    )
    draft = Draft(
        model=load_onnx(Path(bundle.source("float").path)), input=bundle.input, formats=formats, ranges=ranges
    )
    changed = sorted(set(facts.get("steps", {})) - KEEP_WEIGHTS)
    if changed:
        raise BundleError(
            f"{changed[0]} changed the weights of the {target} file of {bundle.path}, but the bundle holds its parent; "
            "look at the sensitivity of an export without that step"
        )
    named = {layer.name for layer in weight_layers(draft)}
    if not ranges or not set(facts.get("int8_layers", ())) <= named:
        raise BundleError(
            f"the manifest of {bundle.path} does not tell how its {target} file follows from its float file; export "
            "the model again, without steps that change its weights"
        )
    return draft


def bundle_sensitivity(
    bundle: Bundle, target: str, split: Split, *, eps: float, seed: int, progress: Progress
) -> list[LayerEffect]:
    """Return what each layer of a bundle does alone in integers, with the ranges of its ``target`` file.

    Layers that the file keeps in float are left in float.
    """
    draft = draft_of_bundle(bundle, target)
    probe = Probe(draft.model, split, eps=eps, seed=seed)
    names = set(bundle.file("int8", target).facts["int8_layers"])
    kept = tuple(layer.name for layer in weight_layers(draft) if layer.name not in names)
    placed = "tensorrt" if target == MIRROR else target
    return sensitivity(replace(draft, keep_float=kept), placed, probe, progress)
