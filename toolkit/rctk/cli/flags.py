"""Flags that several commands share, each declared once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token

from rctk.cli.places import check_folder
from rctk.threat import Norm, ThreatModel
from rctk_export.input_spec import InputSpec
from rctk_export.registry import number
from rctk_kernels.errors import OptionError


def fraction(_type: Any, tokens: Sequence[Token]) -> float:
    """Read ``8/255`` or ``0.03`` from the command line."""
    return number(tokens[0].value)


def whole(_type: Any, tokens: Sequence[Token]) -> int:
    """Read a whole number; ``1.5`` is not rounded."""
    try:
        return int(tokens[0].value)
    except ValueError as error:
        raise OptionError(f"{tokens[0].value!r} is not a whole number; write one such as 100") from error


Whole = Annotated[int, Parameter(converter=whole)]
Fraction = Annotated[float, Parameter(converter=fraction, allow_leading_hyphen=True)]
Repeated = Parameter(negative=(), consume_multiple=False)
Switch = Annotated[bool, Parameter(negative=())]
"""Off unless it is given."""


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
        return read_spec(self.input, self.mean, self.std)


def read_spec(shape: str, mean: str | None, std: str | None) -> InputSpec:
    """Read the three flags; what is wrong with one of them is said under its name."""
    if shape == "uint8":
        raise OptionError("--input is the shape of an image, such as 3x32x32; for 8-bit images write --grid uint8")
    try:
        return InputSpec.parse(shape, mean, std)
    except OptionError as error:
        given = " ".join(f"--{name} {text}" for name, text in (("mean", mean), ("std", std)) if text)
        raise OptionError(f"{given or f'--input {shape}'}: {error}") from error


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ModelFlags(InputFlags):
    """How to read a model file that does not describe itself."""

    arch: str | None = None
    """Architecture of a state dict: built-in name, torchvision:NAME, timm:NAME, FILE.py:FACTORY, MODULE:FACTORY."""
    classes: Annotated[int | None, Parameter(converter=whole)] = None
    """Number of classes, where the architecture needs it."""
    trust_pickle: Switch = False
    """Load a pickled module, which runs whatever code it holds."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ThreatFlags:
    """The budget of an attack."""

    norm: Norm = ThreatModel.norm
    """Norm of the perturbation."""
    eps: Fraction = ThreatModel.eps
    """Budget on images in [0, 1], such as 8/255."""

    def model(self) -> ThreatModel:
        """Return the threat model."""
        return ThreatModel(norm=self.norm, eps=self.eps)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class GridFlags(ThreatFlags):
    """The budget of an attack, and which pixels it may use."""

    grid: Literal["float", "uint8", "both"] = "float"
    """Pixels of adversarial images: any value, the 256 levels of a camera, or both side by side in one run."""

    def model(self) -> ThreatModel:
        """Return the threat model; with ``both`` the one of float-valued images."""
        return ThreatModel(norm=self.norm, eps=self.eps, grid="uint8" if self.grid == "uint8" else "float")

    @property
    def rounded(self) -> bool:
        """Whether candidates are judged a second time after rounding."""
        return self.grid == "both"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """Which images to use."""

    data: str
    """Images: a data set's name or path, then :SPLIT, such as cifar10:test; see `rctk list data`."""
    samples: Annotated[int | None, Parameter(converter=whole)] = None
    """Use so many images, drawn with classes in proportion; all by default."""
    seed: Whole = 0
    """Seed of every random choice."""
    download: Switch = False
    """Fetch a public data set that is not there yet."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RecordFlags:
    """Where results go."""

    out: Annotated[Path, Parameter(name=("--out", "-o", "--records"))] = Path("runs")
    """Folder whose records.jsonl the result is appended to."""

    def checked(self) -> Path:
        """Return the folder, if a record can be written there."""
        check_folder(self.out, "--out")
        return self.out
