"""What a compression step is.

A recipe is a list of steps. *Module steps* (train, prune, distill) change the torch module and come first; then the
module is captured as an ONNX graph, and *graph steps* (quantize) change that. Inside either kind the order is
free where no step undoes another; see :mod:`rctk.compress.order`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import onnx
from torch import nn

from rctk.data.split import Split
from rctk.progress import Progress, Silent
from rctk.quantize.calibrate import Images
from rctk_export.input_spec import InputSpec
from rctk_export.quantize.formats import Formats

Form = Literal["static", "dynamic", "weight-only"]
UNCALIBRATED = ("calibrator", "weights", "calibration_kind", "calibration_eps")
"""Settings of an export that only static files have a use for."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What every step may use.

    Attributes:
        train: Images to learn from.
        validation: Images that choose between epochs or settings; disjoint from ``train`` and never the test set.
        input: Shape and normalisation of the images.
        seed: The only source of randomness.
        progress: Shows stages.
        folder: Where a step may keep files it resumes from; ``None`` keeps nothing.
        parent: The module as it entered the recipe, for distillation; a step leaves it as it is.
    """

    train: Split
    validation: Split
    input: InputSpec
    seed: int = 0
    progress: Progress = field(default_factory=Silent)
    folder: Path | None = None
    parent: nn.Module | None = None


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A float graph on its way to int8, with all that graph steps have decided about its quantization.

    :func:`rctk.exporting.files.int8_files` turns a draft into one file per target.

    Attributes:
        model: Simplified float graph: normalised inside, BatchNorm folded.
        input: Shape of the images.
        form: ``static`` grids for activations; ``dynamic`` ones, chosen at run time; or activations in float, with
            ``weight-only`` codes for linear layers.
        formats: Widths, learned grids, decided codes. Its names are those of nodes and tensors of ``model``: a step
            that changes ``model`` may not leave decisions behind that no longer fit.
        calibrator: How ranges of activations are chosen, such as ``minmax`` or ``percentile:p=99.99``.
        images: Which images calibration sees.
        ranges: Tensor to a range that is known already, and so not calibrated.
        keep_float: Names of layers to leave in float.
        facts: What the steps did, for the manifest: step id to values.
    """

    model: onnx.ModelProto
    input: InputSpec
    form: Form = "static"
    formats: Formats = field(default_factory=Formats)
    calibrator: str = "minmax"
    images: Images = field(default_factory=Images)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    keep_float: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def noted(self, step: str, **values: Any) -> Draft:
        """Return the same draft with one more entry in ``facts``; a second entry of a step replaces the first."""
        return replace(self, facts={**self.facts, step: values})

    def with_formats(self, **changes: Any) -> Draft:
        """Return the same draft with changed fields of ``formats``."""
        return replace(self, formats=replace(self.formats, **changes))


@runtime_checkable
class ModuleStep(Protocol):
    """Changes a torch module that maps normalised images ``(N, C, H, W)`` to logits ``(N, K)``."""

    kind: ClassVar[Literal["module"]]

    def __call__(self, module: nn.Module, context: Context) -> nn.Module:
        """Return the changed module, in evaluation mode; the one that came in may be changed in place."""
        ...


@runtime_checkable
class ModuleReady(Protocol):
    """A module step that can say before the first step runs that it could not do its work."""

    def check_ready(self, module: nn.Module, context: Context) -> None:
        """Raise what the step would raise on ``module``, which enters the recipe and is left as it is."""
        ...


@runtime_checkable
class GraphStep(Protocol):
    """Changes a graph before or while it is quantized."""

    kind: ClassVar[Literal["graph"]]

    def __call__(self, draft: Draft, context: Context) -> Draft:
        """Return a new draft; ``draft`` is left as it is."""
        ...


Step = ModuleStep | GraphStep
