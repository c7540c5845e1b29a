"""The evaluation variant of an int8 file: written where rounded logits would starve score attacks, and checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from rctk_export.engine import Engine, Source
from rctk_export.engines.onnxruntime import OnnxRuntime
from rctk_export.evaluation_variant import check_same_labels, score_resolution, unrounded_logits
from rctk_export.input_spec import FloatNCHW, FloatNK
from rctk_export.onnx_files import serialize
from rctk_kernels.errors import MismatchError

BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How finely an int8 file resolves its logits, and its evaluation variant where that helps.

    Attributes:
        resolution: Of the shipped file: ``distinct``, ``values``, ``tied``, ``step``.
        variant: The file with logits that are not rounded; None where the shipped one does not round them.
        facts: About the variant: check images, those tied in the shipped file, its own resolution.
        problem: Why there is no variant although the logits are rounded; else ``""``.
    """

    resolution: dict[str, Any]
    variant: bytes | None = None
    facts: dict[str, Any] | None = None
    problem: str = ""


def measure_scores(model: onnx.ModelProto, source: Source, images: FloatNCHW, *, optimize: bool) -> Scores:
    """Run an int8 file, and its variant where there is one, on check images; both must name the same classes.

    Args:
        model: The int8 graph.
        source: The same as a file; the variant is put beside it for the check.
        images: ``(N, C, H, W)``.
        optimize: Let ONNX Runtime optimise the graphs.
    """
    settings = OnnxRuntime(optimize=optimize)
    with settings.open(source) as engine:
        shipped = _logits(engine, images)
    resolution = score_resolution(shipped)._asdict()
    variant = unrounded_logits(model)
    if variant is None:
        return Scores(resolution=resolution)
    onnx.checker.check_model(variant, full_check=True)
    data = serialize(variant)
    path = Path(source.path).with_name(f"evaluation-{source.path.name}")
    path.write_bytes(data)
    with settings.open(replace(source, path=path, sha256="")) as engine:
        unrounded = _logits(engine, images)
    try:
        tied = check_same_labels(shipped, unrounded)
    except MismatchError as error:
        return Scores(resolution=resolution, problem=str(error))
    facts = {"samples": len(images), "same_labels": True, "tied": int(tied.sum())}
    return Scores(
        resolution=resolution,
        variant=data,
        facts={**facts, "score_resolution": score_resolution(unrounded)._asdict(), "shipped": resolution},
    )


def _logits(engine: Engine, images: FloatNCHW) -> FloatNK:
    return np.concatenate([engine.predict(images[at : at + BATCH]) for at in range(0, len(images), BATCH)])
