"""Flags that several commands share, each declared once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, Token

from rctk.threat import ThreatModel
from rctk_export.input_spec import InputSpec
from rctk_export.registry import number
from rctk_kernels.errors import OptionError


def fraction(_type: Any, tokens: Sequence[Token]) -> float:
    """Read ``8/255`` or ``0.03`` from the command line."""
    return number(tokens[0].value)


Fraction = Annotated[float, Parameter(converter=fraction)]
Repeated = Parameter(negative=(), consume_multiple=False)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class InputFlags:
    """What goes into a model file that does not say so itself."""

    input: str | None = None
    """Image shape, such as 3x32x32."""
    mean: str | None = None
    """Normalisation mean per channel in units of [0, 1], such as 0.485,0.456,0.406; one value stands for all."""
    std: str | None = None
    """Normalisation standard deviation per channel; 1/255 for networks trained on 0..255."""

    def spec(self) -> InputSpec | None:
        """Return the input spec the flags describe, None without ``--input``."""
        if self.input is None:
            if self.mean or self.std:
                raise OptionError("--mean and --std need --input, such as --input 3x32x32")
            return None
        return InputSpec.parse(self.input, self.mean, self.std)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ModelFlags(InputFlags):
    """How to read a model file that does not describe itself."""

    arch: str | None = None
    """Architecture of a bare state dict: a built-in name, torchvision:NAME, timm:NAME, FILE.py:factory or
    module:factory (a file or module is code and is run)."""
    classes: int | None = None
    """Number of classes, where the architecture needs it."""
    trust_pickle: Annotated[bool, Parameter(negative=())] = False
    """Load a pickled module, which runs whatever code it holds."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ThreatFlags:
    """The budget of an attack."""

    norm: str = ThreatModel.norm
    """Norm of the perturbation: linf, l2 or l1."""
    eps: Fraction = ThreatModel.eps
    """Budget on images in [0, 1], such as 8/255."""

    def model(self) -> ThreatModel:
        """Return the threat model."""
        return ThreatModel(norm=self.norm, eps=self.eps)  # type: ignore[arg-type]  # checked by the threat model itself


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """Which images to use."""

    data: str
    """Data set and split: a name below RCTK_DATA or a path, then :split."""
    samples: int | None = None
    """Use so many images, drawn with classes in proportion; all by default."""
    seed: int = 0
    """Seed of every random choice."""
    download: Annotated[bool, Parameter(negative=())] = False
    """Fetch a public data set that is not there yet."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RecordFlags:
    """Where results go."""

    out: Path = Path("runs")
    """Folder whose records.jsonl the result is appended to."""
