"""What a compression step is.

A recipe is a list of steps. *Module steps* (train, prune, distill) change the torch module and come first; then the
module is captured as an ONNX graph, and *graph steps* (quantize) change that. Order is free inside either kind.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import onnx
from torch import nn

from rctk.data.split import Split
from rctk.progress import Progress, Silent
from rctk_export.input_spec import InputSpec


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
    """

    train: Split
    validation: Split
    input: InputSpec
    seed: int = 0
    progress: Progress = field(default_factory=Silent)
    folder: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A float graph on its way to int8, with all that graph steps have decided about its quantization.

    Attributes:
        model: Simplified float graph: normalised inside, BatchNorm folded.
        input: Shape of the images.
        facts: What the steps did, for the manifest: id to values.
    """

    model: onnx.ModelProto
    input: InputSpec
    facts: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class ModuleStep(Protocol):
    """Changes a torch module that maps normalised images ``(N, C, H, W)`` to logits ``(N, K)``."""

    kind: ClassVar[Literal["module"]]

    def __call__(self, module: nn.Module, context: Context) -> nn.Module:
        """Return the changed module, in evaluation mode; the one that came in may be changed in place."""
        ...


@runtime_checkable
class GraphStep(Protocol):
    """Changes a graph before or while it is quantized."""

    kind: ClassVar[Literal["graph"]]

    def __call__(self, draft: Draft, context: Context) -> Draft:
        """Return a new draft; ``draft`` is left as it is."""
        ...


Step = ModuleStep | GraphStep
