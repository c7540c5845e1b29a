"""Flags of commands that run what a bundle deploys."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rctk.cli.flags import DataFlags, InputFlags
from rctk.data import Split, read_split
from rctk.deployment import Deployment, open_deployment


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DeployedFlags:
    """Which file is meant and what runs it."""

    engine: str = "onnxruntime"
    """Engine that runs the deployed file."""
    target: str | None = None
    """Which int8 file of the bundle; by default the engine's own, else cpu."""
    parent: Annotated[Path | None, Parameter(name="--float")] = None
    """Float .onnx of a bare int8 file."""

    def open(self, path: Path, flags: InputFlags) -> AbstractContextManager[Deployment]:
        """Open the bundle, or the bare file that ``flags`` describe."""
        return open_deployment(path, target=self.target, spec=flags.spec(), parent=self.parent, engine=self.engine)

    def for_(self, deployment: Deployment) -> DeployedFlags:
        """Return the flags with the engine that really runs ``deployment``, so that records name it."""
        return replace(self, engine=deployment.engine_of(self.engine))


def read_images(data: DataFlags, deployment: Deployment) -> Split:
    """Read the images that a command names, in the shape that ``deployment`` takes."""
    return read_split(data.data, samples=data.samples, seed=data.seed, input=deployment.input, download=data.download)
