"""What kind of model file this is, told from its bytes and not from its name."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

from rctk_kernels.errors import ModelError

Form = Literal["pickle", "torchscript", "pt2", "safetensors"]
"""``pickle`` stands for everything that ``torch.save`` writes, state dicts included."""

MAKE_ONE = "give a file written by torch.save, torch.jit.save, torch.export.save or safetensors"
TORCH_MAGIC = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
"""The first number in files that torch wrote before version 1.6."""
BOMB_RATIO = 50
"""torch stores its records uncompressed; an archive that grows more than this while unpacking is not torch's."""


def form_of(path: Path) -> Form:
    """Return the form of the model file at ``path``; :class:`ModelError` where it is none."""
    head, size = _head(path)
    if path.suffix == ".onnx":
        raise ModelError(f"{path} is an ONNX file, not a PyTorch model; `rctk export` and the engines take it as it is")
    if head.startswith(b"PK"):
        return _zip_form(path, size)
    if head[:1] == b"\x80" and TORCH_MAGIC in head:
        return "pickle"
    if head[:1] == b"\x80" and head[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}:  # a pickle and its protocol
        raise ModelError(
            f"{path} is a pickle that torch.save did not write; write it with torch.save(model.state_dict())"
        )
    if head[8:9] == b"{":
        return "safetensors"
    raise ModelError(f"{path} is not a model file: it begins with {head[:8]!r}; {MAKE_ONE}")


def _head(path: Path) -> tuple[bytes, int]:
    if path.is_dir():
        raise ModelError(f"{path} is a folder, expected a model file; name the file in it")
    try:
        with path.open("rb") as file:
            head = file.read(32)
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise ModelError(f"there is no model file {path}; check the path") from error
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}; check its permissions") from error
    if not head:
        raise ModelError(f"{path} is empty; save or copy the model again")
    return head, size


def _zip_form(path: Path, size: int) -> Form:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            unpacked = sum(info.file_size for info in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise damaged(path, error) from error
    if unpacked > BOMB_RATIO * size:
        raise ModelError(
            f"{path} has {size} bytes and would unpack to {unpacked}; torch does not compress, so this is no model of "
            f"its making; {MAKE_ONE}"
        )
    leaves = {name.partition("/")[2] for name in names} | set(names)
    if "archive_format" in leaves or "serialized_exported_program.json" in leaves:
        return "pt2"
    if "constants.pkl" in leaves:
        return "torchscript"
    if "data.pkl" in leaves:
        return "pickle"
    raise ModelError(f"{path} is a zip archive without a model in it; {MAKE_ONE}")


def damaged(path: Path, error: BaseException) -> ModelError:
    """Word the error for a file that begins as a model and does not go on as one."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ModelError(f"{path} is cut short or damaged ({reason}); save or copy the model again")
