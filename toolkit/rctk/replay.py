"""Adversarial images made on a workstation, shipped as one file, judged on a device with NumPy and one runtime.

The file is an ``.npz`` without pickles. It holds the originals, their labels, for every form that was attacked the
strongest candidate of each image, and a manifest: who was attacked with what, and a SHA-256 of every array.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rctk.data.split import Split
from rctk.evaluation.counting import Counted
from rctk.evaluation.judge import Flags
from rctk.evaluation.rounds import Made
from rctk.evaluation.subjects import EIGHT_BIT, Subject
from rctk.evaluation.suite import SuiteResult, attack_subjects
from rctk.progress import Progress
from rctk.threat import ThreatModel
from rctk_export.input_spec import FloatNCHW, InputSpec
from rctk_export.whole_file import write_whole
from rctk_kernels.errors import DataError, RctkError

SCHEMA = 1
MANIFEST, CHECKSUM = "manifest", "checksum"
MAKE_AGAIN = "copy it again, or make it again with `rctk attack --save-candidates FILE`"
CRAFTED = "elsewhere"
"""What tables call the place where replayed candidates were made; their tier is ``transfer-elsewhere``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CandidateSet:
    """What was made for one form.

    Attributes:
        name: Of the form, such as ``engine`` or ``float``.
        images: ``(N, C, H, W)``; the candidate that broke the image, else the last one tried, else the original.
        clean: ``(N,)``; the form got the original right.
        robust: ``(N,)``; and the candidate too.
    """

    name: str
    images: FloatNCHW
    clean: Flags
    robust: Flags

    @property
    def broken(self) -> Flags:
        """``(N,)``; images that the candidate broke where it was made."""
        return np.asarray(self.clean & ~self.robust)


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """The content of a file.

    Attributes:
        split: Originals and labels.
        sets: One for each form that was attacked.
        threat: The budget.
        input: What the model takes.
        facts: JSON values: ``subject`` (name, SHA-256 of the bundle, of its deployed file, target), ``attacks``,
            ``seed``, ``engine``, ``versions``, ``time``.
    """

    split: Split
    sets: tuple[CandidateSet, ...]
    threat: ThreatModel
    input: InputSpec
    facts: Mapping[str, Any]

    @classmethod
    def of(
        cls, result: SuiteResult, split: Split, threat: ThreatModel, spec: InputSpec, facts: Mapping[str, Any]
    ) -> Candidates:
        """Take what a suite of attacks left."""
        sets = tuple(
            CandidateSet(name=name, images=images, clean=result.clean[name], robust=result.robust[name])
            for name, images in result.adversarial.items()
        )
        return cls(split=split, sets=sets, threat=threat, input=spec, facts=facts)

    @property
    def file_sha256(self) -> str:
        """Hash of the deployed file that was attacked."""
        return str(self.facts.get("subject", {}).get("file_sha256", ""))


def write_candidates(path: Path, candidates: Candidates) -> None:
    """Write ``path``, wholly or not at all."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "images": candidates.split.images,
        "labels": candidates.split.labels,
        "indices": candidates.split.indices,
    }
    for number, each in enumerate(candidates.sets):
        arrays |= {f"candidates_{number}": each.images, f"clean_{number}": each.clean, f"robust_{number}": each.robust}
    values = {
        **candidates.facts,
        "schema": SCHEMA,
        "data": {"name": candidates.split.name, "fingerprint": candidates.split.fingerprint},
        "classes": list(candidates.split.classes),
        "threat": asdict(candidates.threat),
        "input": candidates.input.as_dict(),
        "sets": [each.name for each in candidates.sets],
        "arrays": {name: _digest(array) for name, array in arrays.items()},
    }
    manifest = json.dumps(values, sort_keys=True).encode()
    arrays[MANIFEST] = np.frombuffer(manifest, dtype=np.uint8)
    arrays[CHECKSUM] = np.frombuffer(hashlib.sha256(manifest).digest(), dtype=np.uint8)
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]  # the stubs take the names for its own flag
    write_whole(path, content.getbuffer())


def read_candidates(path: Path) -> Candidates:
    """Read a file and check every byte of it; :class:`DataError` names what is wrong."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}; make one with `rctk attack --save-candidates {path}`") from error
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is cut short or no file of candidates ({error}); {MAKE_AGAIN}") from error
    try:
        return _decode(path, arrays)
    except RctkError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"the manifest of {path} lacks or misstates a field ({error!r}); {MAKE_AGAIN}") from error


def _decode(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> Candidates:
    if MANIFEST not in arrays or CHECKSUM not in arrays:
        raise DataError(f"{path} has no manifest, so it holds no candidates; {MAKE_AGAIN}")
    manifest = arrays.pop(MANIFEST).tobytes()
    if hashlib.sha256(manifest).digest() != arrays.pop(CHECKSUM).tobytes():
        raise DataError(f"the manifest of {path} was changed: its SHA-256 is another; {MAKE_AGAIN}")
    values = json.loads(manifest)
    if values["schema"] != SCHEMA:
        raise DataError(f"{path} has schema {values['schema']}, this rctk reads {SCHEMA}; update the older one")
    digests = values.pop("arrays")
    for name in sorted(digests.keys() | arrays.keys()):
        if name not in arrays or digests.get(name) != _digest(arrays[name]):
            raise DataError(f"{name} in {path} was changed: its SHA-256 is not that of the manifest; {MAKE_AGAIN}")
    split = Split(
        name=values["data"]["name"],
        images=arrays["images"],
        labels=arrays["labels"],
        classes=tuple(values.pop("classes")),
        indices=arrays["indices"],
    )
    sets = tuple(_set(path, name, number, arrays, split) for number, name in enumerate(values.pop("sets")))
    threat, spec = ThreatModel(**values.pop("threat")), InputSpec.from_dict(values.pop("input"))
    return Candidates(split=split, sets=sets, threat=threat, input=spec, facts=values)


def _set(path: Path, name: str, number: int, arrays: Mapping[str, npt.NDArray[Any]], split: Split) -> CandidateSet:
    images, clean, robust = (arrays[f"{what}_{number}"] for what in ("candidates", "clean", "robust"))
    fits = images.shape == split.images.shape and clean.shape == robust.shape == split.labels.shape
    if not fits or images.dtype != np.float32 or not np.isfinite(images).all():
        raise DataError(f"the candidates for {name} in {path} do not fit its images; {MAKE_AGAIN}")
    return CandidateSet(name=name, images=images, clean=clean, robust=robust)


def _digest(array: npt.NDArray[Any]) -> str:
    head = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


class SetResult(NamedTuple):
    """What one set of candidates did here, of the images that are right here and were right where it was made."""

    name: str
    common: int
    broken_there: int
    broken_here: int
    broken_both: int
    moved: int
    """Candidates that left the budget and were brought back; 0 unless the file was made by something else."""


def replay(
    subject: Subject, candidates: Candidates, *, batch_size: int, progress: Progress | None = None
) -> tuple[SuiteResult, list[SetResult]]:
    """Judge every candidate with ``subject``; return the worst case per image, and what each set did.

    Candidates are projected into the budget first: what arrives is not trusted to keep it.
    """
    split, queries = candidates.split, Counted(subject.predict, len(candidates.split), batch_size)
    everything = np.arange(len(split))
    clean = queries.classes(split.images, everything) == split.labels
    made, found = [], []
    for each in candidates.sets:
        grid = "uint8" if each.name.endswith(EIGHT_BIT) else candidates.threat.grid
        images = replace(candidates.threat, grid=grid).project(each.images, split.images)
        moved = int((np.abs(images - each.images).reshape(len(split), -1).max(axis=1) > 1e-6).sum())
        broken = clean & (queries.classes(images, everything) != split.labels)
        both = clean & each.clean
        found.append(
            SetResult(
                name=each.name,
                common=int(both.sum()),
                broken_there=int((both & each.broken).sum()),
                broken_here=int((both & broken).sum()),
                broken_both=int((both & each.broken & broken).sum()),
                moved=moved,
            )
        )
        made.append(
            Made(
                attack=f"replay of {each.name}",
                subject=f"{each.name} {CRAFTED}",
                evidence="gradient",
                rows=everything,
                images=images,
                queries={},
                forward_passes=0,
                backward_passes=0,
                seconds=0.0,
            )
        )
    seed = int(candidates.facts.get("seed", 0))
    result = attack_subjects(
        [subject], split, (), candidates.threat, seed=seed, batch_size=batch_size, last=lambda: made, progress=progress
    )
    entries = tuple(replace(entry, crafted_on=CRAFTED) for entry in result.entries)
    settings = {**result.settings, "attacks": tuple(f"replay:{text}" for text in candidates.facts.get("attacks", ()))}
    return replace(result, entries=entries, settings=settings), found
