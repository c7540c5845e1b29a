"""A header of JSON values and named tensors in one file, ``.safetensors`` or that of ``torch.save``."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rctk.model_io.files import write_atomically
from rctk.model_io.forms import damaged, form_of
from rctk_kernels.errors import ModelError

SAFETENSORS = ".safetensors"
HEADER = "rctk"
"""Key of the header in the metadata of a safetensors file."""
STATE = "state_dict"
"""Key of the tensors in a file of ``torch.save``, beside the header's own keys."""
UNREADABLE = (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError)


def write_tensors(path: Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write one file, wholly or not at all; the same values give the same bytes.

    Args:
        path: Replaced in one step; its suffix chooses the format.
        header: Plain JSON values.
        tensors: On any device; they are copied.

    Raises:
        ModelError: A value is not JSON, or the file cannot be written.
    """
    try:
        text = json.dumps(header)
    except (TypeError, ValueError) as error:
        raise ModelError(f"extra must hold plain JSON values ({error}); convert arrays and paths first") from error
    state = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    buffer = io.BytesIO()
    if path.suffix == SAFETENSORS:
        from safetensors.torch import save  # noqa: PLC0415  an optional writer

        buffer.write(save(state, metadata={HEADER: text}))
    else:
        torch.save({**json.loads(text), STATE: state}, buffer)
    write_atomically(path, buffer.getbuffer())


def peek(path: Path) -> dict[str, Any]:
    """Return the header of a file that :func:`write_tensors` wrote, without its tensors; empty for any other file.

    No code that the file names is run.
    """
    try:
        if form_of(path) == "safetensors":
            header = _safetensors(path, tensors=False)[0]
        else:
            header = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (ModelError, pickle.UnpicklingError, *UNREADABLE):
        return {}
    return {key: value for key, value in header.items() if key != STATE} if isinstance(header, dict) else {}


def read_tensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return header and tensors of a file that :func:`write_tensors` wrote; :class:`ModelError` where it is damaged."""
    if form_of(path) == "safetensors":
        return _safetensors(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = content.pop(STATE)
    except (pickle.UnpicklingError, *UNREADABLE) as error:
        raise damaged(path, error) from error
    return content, dict(state)


def _safetensors(path: Path, *, tensors: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        from safetensors import SafetensorError, safe_open  # noqa: PLC0415  an optional reader
    except ImportError as error:
        raise ModelError(f"{path} needs the safetensors package; `pip install safetensors`") from error
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = json.loads((file.metadata() or {}).get(HEADER, "{}"))
            names = list(file.keys()) if tensors else []
            return header, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, error) from error
