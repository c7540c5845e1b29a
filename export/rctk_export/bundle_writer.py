"""Write a bundle so that at every moment the folder holds the old one or the new one, whole."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, final

from rctk_export.bundle import (
    MANIFEST,
    Bundle,
    BundleFile,
    Role,
    is_bundle,
    manifest_text,
    manifest_values,
    read_bundle,
)
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import BundleError

MAX_FILE_BYTES = 2**31 - 1
"""A protobuf message cannot be longer, and a bundle never uses ONNX external data."""
OURS = re.compile(rf"{re.escape(MANIFEST)}|float\.onnx|(int8|evaluation)-[a-z0-9-]+\.onnx|plan-[a-z0-9-]+\.plan")
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # <fcntl.h>, <linux/fs.h>


@final
class BundleWriter:
    """Collects files in ``.NAME.new`` beside the bundle and exchanges the folders when it is committed.

    Everything is flushed to the disk before the exchange. Whatever ends the ``with`` block early removes the new folder
    and leaves the old bundle alone. A process that was killed leaves ``.NAME.new`` (and, where the file system
    cannot exchange two folders, perhaps ``.NAME.old``); the next writer of the same bundle tidies both.

    Args:
        path: Folder of the bundle; missing, empty, or with ``force`` an earlier bundle.
        force: Replace an earlier bundle. Anything else at ``path`` is never removed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, BundleWriter(Path(folder) / "tiny") as writer:
        ...     added = writer.add("float", "", b"onnx")
        ...     spec = InputSpec(channels=1, height=8, width=8)
        ...     bundle = writer.commit(name="tiny", input=spec, classes=(), model={}, calibration={})
        >>> bundle.files[0].path, bundle.files[0].size_bytes
        ('float.onnx', 4)
    """

    def __init__(self, path: Path, *, force: bool = False) -> None:
        self._shown = path
        self._path = Path(os.path.realpath(path))
        self._force = force
        beside = f"{self._path.parent}/.{self._path.name}"
        self._new, self._old = Path(f"{beside}.new"), Path(f"{beside}.old")
        self._lockfile = Path(f"{beside}.lock")
        self._files: list[BundleFile] = []
        self._held = contextlib.ExitStack()

    def __enter__(self) -> BundleWriter:
        with contextlib.ExitStack() as stack, self._explained():
            self.refuse_occupied()
            stack.enter_context(_parents(self._path.parent))
            stack.enter_context(_lock(self._lockfile, self._shown))
            self._tidy()
            stack.callback(self._leave)
            self.refuse_occupied()  # a bundle may have come back, or come into being, before the lock was ours
            self._new.mkdir()
            self._held = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._explained():
            self._held.close()

    def add(self, role: Role, target: str, data: bytes, facts: Mapping[str, Any] | None = None) -> BundleFile:
        """Write one file; its name follows from role and target.

        Args:
            role: See :class:`~rctk_export.bundle.BundleFile`.
            target: Lower-case letters, digits and dashes; ``""`` for the float file.
            data: The whole file, at most 2 GB.
            facts: JSON values for the manifest.
        """
        name = f"{role}-{target}.{'plan' if role == 'plan' else 'onnx'}" if target else f"{role}.onnx"
        file = BundleFile(
            role=role,
            target=target,
            path=name,
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            facts=dict(facts or {}),
        )
        if name == MANIFEST or not OURS.fullmatch(name):
            raise BundleError(
                f"target {target!r} cannot be part of a file name; use lower-case letters, digits and dashes"
            )
        if any(other.path == name for other in self._files):
            raise BundleError(f"{name} was added to {self._shown} twice; a bundle has one {role} file per target")
        if len(data) > MAX_FILE_BYTES:
            raise BundleError(
                f"{name} would have {len(data)} bytes; the files of a bundle have at most {MAX_FILE_BYTES} (ONNX "
                "external data is not used): choose a smaller model"
            )
        self._write(name, data)
        self._files.append(file)
        return file

    def commit(
        self,
        *,
        name: str,
        input: InputSpec,  # noqa: A002  # the field's name
        classes: Sequence[str],
        model: Mapping[str, Any],
        calibration: Mapping[str, Any],
        versions: Mapping[str, Any] | None = None,
    ) -> Bundle:
        """Write the manifest, flush everything, put the folder in its place, and read it back."""
        if not self._files:
            raise BundleError(f"nothing was added to {self._shown}; a bundle has at least one file")
        draft = Bundle(
            path=self._path,
            name=name,
            input=input,
            classes=tuple(classes),
            files=tuple(self._files),
            model=dict(model),
            calibration=dict(calibration),
            versions=dict(versions or {}),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            sha256="",
        )
        self._write(MANIFEST, manifest_text(manifest_values(draft)).encode())
        with self._explained():
            _sync(self._new)
            self.refuse_occupied()
            self._put_in_place()
            _sync(self._path.parent)
        return replace(read_bundle(self._path), path=self._shown)

    def _write(self, name: str, data: bytes) -> None:
        with self._explained(), (self._new / name).open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())

    def _put_in_place(self) -> None:
        if not is_bundle(self._path):
            self._new.rename(self._path)  # onto nothing or onto an empty folder; anything else makes this fail
        elif not _exchange(self._new, self._path):
            self._path.rename(self._old)
            self._new.rename(self._path)

    def refuse_occupied(self) -> None:
        """Raise :class:`BundleError` where the path holds what will not be replaced; also before the work begins."""
        if not os.path.lexists(self._path):
            return
        if not self._path.is_dir():
            raise BundleError(f"{self._shown} exists and is not a bundle; it stays as it is: choose another folder")
        names = _names(self._path)
        foreign = [name for name in names if not OURS.fullmatch(name)]
        if names and (foreign or not is_bundle(self._path) or len(names) < 2):
            held = ", ".join((foreign or names)[:3])
            raise BundleError(
                f"{self._shown} exists and holds what no bundle does ({held}); it stays as it is: choose another folder"
            )
        if names and not self._force:
            raise BundleError(f"{self._shown} is a bundle already; replace it with --force or choose another folder")

    def _leave(self) -> None:
        try:
            self._tidy()
        except KeyboardInterrupt:
            self._tidy()  # an impatient second Ctrl-C is left to the next writer
            raise

    def _tidy(self) -> None:
        """Remove what this writer, or one that was killed, leaves; bring a bundle back that was only moved aside."""
        if is_bundle(self._old) and not os.path.lexists(self._path):
            self._old.rename(self._path)
        for folder in (self._new, self._old):
            if not os.path.lexists(folder):
                continue
            if folder.is_symlink() or not folder.is_dir() or not all(map(OURS.fullmatch, _names(folder))):
                raise BundleError(f"{folder} is in the way and not a leftover of rctk; move it elsewhere")
            shutil.rmtree(folder)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BundleError(_advice(error, self._shown)) from error


def _advice(error: OSError, path: Path) -> str:
    steps = {
        errno.ENOSPC: "free some space or choose a folder on another disk",
        errno.EDQUOT: "free some space or choose a folder on another disk",
        errno.EACCES: "choose a folder that you may write to",
        errno.EPERM: "choose a folder that you may write to",
        errno.EROFS: "choose a folder that you may write to",
        errno.EBUSY: "it seems to be a mount point; name a folder inside it",
        errno.EXDEV: "it seems to be a mount point; name a folder inside it",
        errno.ENOLCK: "its file system has no locks; choose a folder on a local disk",
        errno.EOPNOTSUPP: "its file system has no locks; choose a folder on a local disk",
    }
    step = steps.get(error.errno or 0, "choose another folder")
    return f"cannot write the bundle {path}: {error.strerror or error}; what was there before is untouched: {step}"


@contextlib.contextmanager
def _parents(folder: Path) -> Iterator[None]:
    """Make the folders above a bundle; take those away again that stay empty."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # holds something by now
            for parent in missing:
                parent.rmdir()


@contextlib.contextmanager
def _lock(path: Path, bundle: Path) -> Iterator[None]:
    """Hold ``path`` as the only process; the file goes away with the lock, and one left by a kill holds nobody up."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            raise BundleError(
                f"{bundle} is being written by another process (pid {pid}); wait for it or choose another folder"
            ) from error
        except OSError:
            os.close(handle)
            raise
        if path.exists() and path.stat().st_ino == os.fstat(handle).st_ino:
            break
        os.close(handle)  # its former owner removed it between our open and our lock
    try:
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _exchange(one: Path, two: Path) -> bool:
    """Swap two folders in one step; ``False`` where the kernel or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    if renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(two), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in {errno.ENOSYS, errno.EINVAL}:
        return False
    raise OSError(code, os.strerror(code), str(two))


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # not every file system can flush a folder
            raise
    finally:
        os.close(handle)
