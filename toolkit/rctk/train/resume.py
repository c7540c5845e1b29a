"""What a training run needs to go on where it was stopped."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from rctk.model_io.files import write_atomically
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class ResumeFile:
    """The state after the last finished epoch; it is replaced in one step, and removed when the run is through.

    Attributes:
        path: The file.
        go_on: Read it; otherwise a file that is there is replaced after the first epoch.
        needed: Whether a missing file is an error, or means that the run starts from the beginning.
    """

    path: Path
    go_on: bool
    needed: bool = True

    @classmethod
    def beside(cls, path: Path, *, go_on: bool) -> ResumeFile:
        """Return that of a checkpoint: ``model-resume.pt`` for ``model.pt``."""
        return cls(path=path.with_name(f"{path.stem}-resume.pt"), go_on=go_on)

    def load(self, key: Mapping[str, str]) -> dict[str, Any] | None:
        """Return the state, None where the run starts anew; a state of other settings is refused.

        Args:
            key: Everything that must be as it was: name to a text of its value.
        """
        if not self.go_on:
            return None
        if not self.path.exists():
            if not self.needed:
                return None
            raise OptionError(
                f"there is no {self.path} to go on from: no epoch was finished, or the run is through; leave --resume "
                "out to start anew"
            )
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            stored: dict[str, str] = state["key"]
        except (OSError, RuntimeError, EOFError, LookupError, TypeError, ValueError, pickle.UnpicklingError) as error:
            raise OptionError(f"{self.path} is no state of a training run; leave --resume out to start anew") from error
        for name in sorted({*stored, *key}):
            if stored.get(name) != key.get(name):
                raise OptionError(
                    f"{self.path} is of a run with {name} {stored.get(name, 'unset')}, this one has "
                    f"{key.get(name, 'unset')}; give the same settings, or leave --resume out to start anew"
                )
        return cast("dict[str, Any]", state)

    def save(self, key: Mapping[str, str], state: Mapping[str, Any]) -> None:
        """Replace the file."""
        buffer = io.BytesIO()
        torch.save({**state, "key": dict(key)}, buffer)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, buffer.getbuffer())

    def remove(self) -> None:
        """Remove the file of a run that is through."""
        self.path.unlink(missing_ok=True)
