"""The bundle: a folder with what ships, its manifest, and a hash of every byte.

Beside ``manifest.json`` lie ``float.onnx``, ``int8-TARGET.onnx``, ``evaluation-TARGET.onnx`` and ``plan-TARGET.plan``.
:class:`rctk_export.bundle_writer.BundleWriter` makes one; :func:`read_bundle` trusts nothing that it has not hashed.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np

from rctk_export.engine import Source
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import BundleError

SCHEMA = 1
"""Version of the manifest; raised when an older rctk could no longer understand a bundle."""
MANIFEST = "manifest.json"
DEFAULT_TARGET = "cpu"
"""The target that is meant where a bundle has several and none is named."""
MANIFEST_BYTES = 64 * 2**20  # a larger one is no manifest of ours, and is not read into memory
AGAIN = "make it again with `rctk export --force`"

Role = Literal["float", "int8", "evaluation", "plan"]


@dataclass(frozen=True, kw_only=True)
class BundleFile:
    """One file of a bundle.

    Attributes:
        role: ``float`` is the parent, ``int8`` ships, ``evaluation`` is the same int8 file with logits that are not
            rounded (score attacks read them, it never ships), ``plan`` was built on this machine.
        target: Such as ``cpu`` or ``tensorrt``; ``""`` for the float file.
        path: Plain file name inside the bundle.
        size_bytes: Length of the file.
        sha256: Of the file, in hexadecimal.
        facts: What was found out about it on export: agreement numbers, layers quantized and kept float with reasons.
    """

    role: Role
    target: str
    path: str
    size_bytes: int
    sha256: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.role not in get_args(Role) or (self.role == "float") != (self.target == ""):
            raise BundleError(f"a bundle has no place for a file of role {self.role!r} and target {self.target!r}")
        if self.path in {"", ".", "..", MANIFEST} or any(character in self.path for character in "/\\\0:"):
            raise BundleError(f"the manifest names {self.path!r}; only plain file names inside the bundle are read")


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle on disk; every file was as long and had the hash that the manifest says when it was read.

    Attributes:
        path: The folder.
        name: Of the model, for people.
        input: What goes in.
        classes: Names of the ``K`` classes; empty where nobody told.
        files: In the order in which they were added.
        model: Where the parent came from: file name without its folder, its hash, architecture, form.
        calibration: Data and settings of the quantization.
        versions: Of the packages that made it.
        created: Time in UTC, ISO 8601.
        sha256: Of the manifest; names the bundle in records.
    """

    path: Path
    name: str
    input: InputSpec
    classes: tuple[str, ...]
    files: tuple[BundleFile, ...]
    model: Mapping[str, Any]
    calibration: Mapping[str, Any]
    versions: Mapping[str, Any]
    created: str
    sha256: str

    def targets(self) -> list[str]:
        """Return the targets that have an int8 file."""
        return [file.target for file in self.files if file.role == "int8"]

    def file(self, role: str = "int8", target: str = "") -> BundleFile:
        """Find a file; without a target the only one of its role, or the one for ``cpu`` among several."""
        found = [file for file in self.files if file.role == role and target in {"", file.target}]
        chosen = found if len(found) == 1 else [file for file in found if file.target == DEFAULT_TARGET]
        if len(chosen) == 1:
            return chosen[0]
        held = ", ".join(f"{file.role} {file.target}".strip() for file in self.files)
        wanted = f"{role} file for target {target!r}" if target else f"single {role} file"
        raise BundleError(f"no {wanted} in {self.path}; it holds {held}: choose one with --target")

    def source(self, role: str = "int8", target: str = "") -> Source:
        """Return what an engine opens for :meth:`file`; all roles but ``float`` hold int8 arithmetic."""
        file = self.file(role, target)
        return Source(
            path=self.path / file.path,
            input=self.input,
            role="float" if file.role == "float" else "int8",
            target=file.target,
            sha256=file.sha256,
        )


def is_bundle(path: Path) -> bool:
    """Whether ``path`` is a folder with a manifest; :func:`read_bundle` tells whether that is in order."""
    try:
        return (path / MANIFEST).is_file()
    except OSError:
        return False


def read_bundle(path: Path) -> Bundle:
    """Read the bundle at ``path`` and verify the manifest's hash and the length and SHA-256 of every file.

    A writer may exchange the whole folder meanwhile: what was read is then read again from the new one.
    """
    while True:
        folder = _hold(path)
        try:
            return _read(path)
        except BundleError:
            if folder is None or _is_at(folder, path):
                raise
        finally:
            if folder is not None:
                os.close(folder)


def manifest_text(values: Mapping[str, Any]) -> str:
    """Render a manifest and the hash that goes into it, as JSON; NaN and infinity are refused."""
    try:
        plain = json.loads(json.dumps(values, allow_nan=False, default=_plain))  # tuples, integer keys, NumPy scalars
        return json.dumps({**plain, "sha256": manifest_sha256(plain)}, indent=2) + "\n"
    except ValueError as error:
        raise BundleError(f"a manifest holds finite numbers only: {error}; look at its facts for NaN") from error


def manifest_sha256(values: Mapping[str, Any]) -> str:
    """Hash the meaning of a manifest: its JSON with sorted keys, without spaces and without the hash itself."""
    told = {key: value for key, value in values.items() if key != "sha256"}
    canonical = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a manifest cannot hold {value!r}")


def manifest_values(bundle: Bundle) -> dict[str, Any]:
    """Return what the manifest of ``bundle`` says, without its hash."""
    values = {key: value for key, value in asdict(bundle).items() if key not in {"path", "sha256"}}
    return {"schema": SCHEMA, **values, "input": bundle.input.as_dict(), "classes": list(bundle.classes)}


def _hold(path: Path) -> int | None:
    """Open a folder, so that its number is given to no other while we read; ``None`` where it cannot be opened."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None


def _is_at(folder: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(folder), path.stat())
    except OSError:
        return False


def _read(path: Path) -> Bundle:
    manifest = path / MANIFEST
    try:
        if not path.is_dir():
            raise BundleError(_not_a_folder(path))
        if not manifest.is_file():
            raise BundleError(f"no {MANIFEST} in {path}; make a bundle with `rctk export --int8 model.pt -o {path}`")
        if manifest.stat().st_size > MANIFEST_BYTES:
            raise BundleError(f"{manifest} is {manifest.stat().st_size} bytes long, which no manifest is; {AGAIN}")
        bundle = _decode(path, manifest.read_bytes())
        for file in bundle.files:
            _verify(path, file)
    except OSError as error:
        raise BundleError(f"cannot read the bundle {path}: {error.strerror} ({error.filename})") from error
    return bundle


def _not_a_folder(path: Path) -> str:
    if path.exists():
        return f"{path} is a file; a bundle is the folder that `rctk export -o FOLDER` makes"
    former = path.parent / f".{path.name}.old"
    if is_bundle(former):
        return (
            f"no bundle at {path}, its former content is in {former}: another process replaces it at this moment (read "
            "again), or was killed in between (rename it back)"
        )
    return f"no bundle at {path}; make one with `rctk export --int8 model.pt -o {path}`"


def _decode(path: Path, data: bytes) -> Bundle:
    try:
        values = json.loads(data)
        schema = values["schema"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{path / MANIFEST} is damaged or not a manifest of rctk ({error!r}); {AGAIN}") from error
    if isinstance(schema, int) and schema > SCHEMA:
        raise BundleError(
            f"{path} needs a newer rctk: its schema is {schema}, this one reads {SCHEMA}; run `pip install -U rctk`"
        )
    if schema != SCHEMA:
        raise BundleError(f"{path / MANIFEST} is damaged: there is no schema {schema!r:.20}; {AGAIN}")
    try:
        found = manifest_sha256(values)
        if found != values["sha256"]:
            raise BundleError(_changed(MANIFEST, str(values["sha256"]), found, path))
        return _bundle(path, values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(f"{path / MANIFEST} lacks or misstates a field ({error!r}); {AGAIN}") from error


def _bundle(path: Path, values: Mapping[str, Any]) -> Bundle:
    texts = {key: _typed(values[key], str) for key in ("name", "created", "sha256")}
    tables = {key: _typed(values[key], dict) for key in ("model", "calibration", "versions")}
    return Bundle(
        path=path,
        input=InputSpec.from_dict(_typed(values["input"], dict)),
        classes=tuple(_typed(name, str) for name in _typed(values["classes"], list)),
        files=tuple(_file(item) for item in _typed(values["files"], list)),
        **texts,
        **tables,
    )


def _file(values: Mapping[str, Any]) -> BundleFile:
    texts = {key: _typed(values[key], str) for key in ("target", "path", "sha256")}
    return BundleFile(
        role=cast("Role", _typed(values["role"], str)),
        size_bytes=_typed(values["size_bytes"], int),
        facts=_typed(values["facts"], dict),
        **texts,
    )


def _typed(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, found {value!r:.80}")
    return value


def _verify(folder: Path, file: BundleFile) -> None:
    path = folder / file.path
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError as error:
        raise BundleError(f"{file.path} is missing from {folder}; {AGAIN}") from error
    if not stat.S_ISREG(mode):
        raise BundleError(
            f"{path} is not a regular file; a bundle holds no links or folders. Copy the bundle with `cp -rL`"
        )
    if path.stat().st_size != file.size_bytes:
        size = path.stat().st_size
        raise BundleError(f"{file.path} in {folder} has {size} bytes, the manifest says {file.size_bytes}; {AGAIN}")
    found = file_sha256(path)
    if found != file.sha256:
        raise BundleError(_changed(file.path, file.sha256, found, folder))


def _changed(name: str, expected: str, found: str, folder: Path) -> str:
    return f"{name} in {folder} was changed: expected SHA-256 {expected[:12]}, found {found[:12]}; {AGAIN}"


def file_sha256(path: Path) -> str:
    """Hash a file of any size with constant memory."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
