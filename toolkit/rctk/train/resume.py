"""What a training run needs to go on where it was stopped."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from rctk.model_io.files import write_atomically
from rctk_kernels.errors import OptionError

DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True, kw_only=True)
class ResumeFile:
    """The state after the last finished epoch; it is replaced in one step, and removed when the run is through.

    The SHA-256 of everything before it ends the file: a bit that turned on the disk would go into the weights unseen.

    Attributes:
        path: The file.
        go_on: Read it; otherwise a file that is there is replaced after the first epoch.
        needed: Whether a file that is missing, damaged or of another run is an error, or means that the run starts from
            the beginning.
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
        try:
            return self._read(key)
        except OptionError:
            if self.needed:
                raise
            return None

    def _read(self, key: Mapping[str, str]) -> dict[str, Any]:
        if not self.path.exists():
            raise OptionError(
                f"there is no {self.path} to go on from: no epoch was finished, or the run is through; leave --resume "
                "out to start anew"
            )
        try:
            state = torch.load(io.BytesIO(self._intact()), map_location="cpu", weights_only=True)
            stored: dict[str, str] = state["key"]
        except (OSError, RuntimeError, EOFError, LookupError, TypeError, ValueError, pickle.UnpicklingError) as error:
            raise OptionError(
                f"{self.path} is damaged or no state of a training run; leave --resume out to start anew"
            ) from error
        for name in sorted({*stored, *key}):
            if stored.get(name) != key.get(name):
                raise OptionError(
                    f"{self.path} is of a run with {name} {stored.get(name) or 'unset'}, this one has "
                    f"{key.get(name) or 'unset'}; give the same settings, or leave --resume out to start anew"
                )
        return cast("dict[str, Any]", state)

    def _intact(self) -> bytes:
        data = self.path.read_bytes()
        content, digest = data[:-DIGEST], data[-DIGEST:]
        if hashlib.sha256(content).digest() != digest:
            raise ValueError("the digest does not fit")
        return content

    def save(self, key: Mapping[str, str], state: Mapping[str, Any]) -> None:
        """Replace the file."""
        buffer = io.BytesIO()
        torch.save({**state, "key": dict(key)}, buffer)
        digest = hashlib.sha256(buffer.getbuffer()).digest()
        buffer.seek(0, io.SEEK_END)
        buffer.write(digest)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, buffer.getbuffer())

    def remove(self) -> None:
        """Remove the file of a run that is through."""
        self.path.unlink(missing_ok=True)
