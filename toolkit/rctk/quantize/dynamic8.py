"""``quant.ptq_dynamic8``: int8 weights, and activation grids that are chosen at run time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from rctk.compress.step import UNCALIBRATED, Context, Draft, Form
from rctk_export.graph import Graph


@dataclass(frozen=True, kw_only=True)
class PtqDynamic8:
    """Write a dynamic file for target ``cpu``; no calibration image is used.

    Attributes:
        layers: ``linear`` layers only, the usual choice; ``all`` also quantizes convolutions, which ONNX Runtime runs
            slower so than in float or static int8.
    """

    kind: ClassVar[Literal["graph"]] = "graph"
    role: ClassVar[str] = "formats"
    decides: ClassVar[Mapping[str, str]] = dict.fromkeys(UNCALIBRATED, "")
    form: ClassVar[Form] = "dynamic"
    layers: Literal["linear", "all"] = "linear"

    def __call__(self, draft: Draft, context: Context) -> Draft:  # noqa: ARG002  # no images are needed
        """See :class:`rctk.compress.step.GraphStep`."""
        convolutions = [node.name for node in Graph(draft.model).nodes if node.op_type == "Conv"]
        kept = draft.keep_float if self.layers == "all" else (*draft.keep_float, *convolutions)
        changed = replace(draft, form=self.form, keep_float=tuple(dict.fromkeys(kept)))
        return changed.noted("quant.ptq_dynamic8", layers=self.layers)
