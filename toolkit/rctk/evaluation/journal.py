"""Finished batches of a long evaluation on disk, so that a stopped run goes on where it was, with the same result."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from rctk.attacks.attack import Attack, Rows
from rctk.data.split import Labels
from rctk.evaluation.counting import Counted
from rctk.evaluation.crafting import Cost, Crafter, Proposal
from rctk.threat import ThreatModel
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import RecordError


class Journal:
    """A folder of batches; one file holds what one attack proposed for one batch, and what that cost.

    Batches are found again by everything that decides them: models, data, budget, seed, batch size, attack and the
    images of the batch. Under other settings nothing is found and everything runs.

    Args:
        folder: Made when the first batch is saved.
        facts: What decides the run besides attack and batch: hashes of models and data, versions, seed, batch size.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self._facts = json.dumps(facts, sort_keys=True, default=str)
        name = hashlib.sha256(self._facts.encode()).hexdigest()[:16]
        self.folder = folder / name
        self.found = 0

    def path(self, attack: Attack, threat: ThreatModel, subject: str, rows: Rows, *, push: bool) -> Path:
        """Return the file of one batch."""
        settings = {"attack": attack.name, **asdict(cast("Any", attack)), **asdict(threat), "push": push}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
        digest.update(subject.encode() + b"\0" + np.ascontiguousarray(rows, dtype=np.int64).tobytes())
        return self.folder / f"{digest.hexdigest()[:32]}.npz"

    def wrap(self, crafter: Crafter, attack: Attack, threat: ThreatModel, subject: str, counted: Counted) -> Crafter:
        """Return ``crafter`` behind this journal."""
        return _Journaled(self, crafter, attack, threat, subject, counted)

    def kept(
        self, key: str, make: Callable[[], Mapping[str, npt.NDArray[Any]]]
    ) -> tuple[Mapping[str, npt.NDArray[Any]], bool]:
        """Return the arrays saved under ``key`` and True, or make and save them and return False with them."""
        path = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
        saved = _load(path)
        if saved is not None:
            self.found += 1
            return saved, True
        made = make()
        _save(path, made)
        return made, False

    def forget(self) -> None:
        """Remove the batches of this run; call it when the result is on disk."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()  # only where no other run is in it


class _Journaled:
    """A crafter that looks for a batch on disk before it crafts; see :class:`rctk.evaluation.crafting.Crafter`."""

    def __init__(  # what Journal.wrap was given, and the journal
        self, journal: Journal, inner: Crafter, attack: Attack, threat: ThreatModel, subject: str, counted: Counted
    ) -> None:
        self._journal, self._inner, self._counted = journal, inner, counted
        self._attack, self._threat, self._subject = attack, threat, subject
        self._restored = Cost()

    @property
    def cost(self) -> Cost:
        """Passes of this run and of the batches that were found."""
        return Cost(*(a + b for a, b in zip(self._inner.cost, self._restored, strict=True)))

    def craft(self, x: FloatNCHW, y: Labels, rows: Rows, *, push: bool = False) -> Proposal:
        """Return the batch from disk, or craft and save it."""
        path = self._journal.path(self._attack, self._threat, self._subject, rows, push=push)
        saved = _load(path)
        if saved is not None and saved["images"].shape == x.shape:
            return self._restore(saved, rows)
        cost, queries, unbooked = self._inner.cost, self._counted.queries.copy(), self._counted.unbooked
        proposal = self._inner.craft(x, y, rows, push=push)
        _save(
            path,
            {
                "images": proposal.images,
                "stopped": proposal.stopped,
                "replaced": np.int64(proposal.replaced),
                "cost": np.asarray([b - a for a, b in zip(cost, self._inner.cost, strict=True)], dtype=np.int64),
                "queries": (self._counted.queries - queries)[rows],
                "unbooked": np.int64(self._counted.unbooked - unbooked),
            },
        )
        return proposal

    def _restore(self, saved: Mapping[str, npt.NDArray[Any]], rows: Rows) -> Proposal:
        self._journal.found += 1
        self._counted.queries[rows] += saved["queries"]
        self._counted.unbooked += int(saved["unbooked"])
        self._restored = Cost(*(a + int(b) for a, b in zip(self._restored, saved["cost"], strict=True)))
        return Proposal(images=saved["images"], stopped=saved["stopped"], replaced=int(saved["replaced"]))


def _load(path: Path) -> dict[str, npt.NDArray[Any]] | None:
    """Read a batch; None where there is none, or where the file is damaged and must be made again."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # a file that was cut short is worth no more than a missing one


def _save(path: Path, arrays: Mapping[str, Any]) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.savez(file, **arrays)
        part.replace(path)
    except OSError as error:
        raise RecordError(
            f"cannot keep a finished batch in {path.parent}: {error.strerror or error}; give --out a folder with space"
        ) from error
    finally:
        part.unlink(missing_ok=True)
