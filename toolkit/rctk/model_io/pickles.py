"""Files of ``torch.save``, read without running what they name."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rctk.model_io.forms import damaged
from rctk_kernels.errors import ModelError

HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    type(np.dtype(np.float32)),
    type(np.dtype(np.float64)),
    type(np.dtype(np.int64)),
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
]
"""What training scripts like to leave beside the weights: their options and an accuracy that is a NumPy scalar."""


def read_pickle(path: Path, *, trust_pickle: bool) -> Any:
    """Return what ``torch.save`` put into ``path``, on the CPU.

    Only tensors and plain values are unpickled. With ``trust_pickle`` a file that names classes or functions is
    unpickled as it asks, which may run any code.
    """
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(HARMLESS):
            warnings.simplefilter("ignore")  # about the pickle protocol; what cannot be read is an error below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named is None and "Unsupported" not in str(error):
            raise damaged(path, RuntimeError("the pickle in it is not complete")) from error
        if not trust_pickle:
            what = f"it names {named[1]}" if named else "it holds more than tensors and plain values"
            raise ModelError(
                f"{path} is a pickle that can run code when it is loaded ({what}), so it was not loaded; save "
                "`model.state_dict()` and give --arch, or pass --trust-pickle if you trust whoever made the file"
            ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise damaged(path, error) from error
    return _read_trusted(path)


def _read_trusted(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=False)  # the user said --trust-pickle
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"{path} needs code that is not here ({error}); run rctk where it can be imported, for example with "
            "PYTHONPATH=FOLDER"
        ) from error
    except Exception as error:  # unpickling runs whatever the file names
        raise ModelError(f"{path} cannot be unpickled: {type(error).__name__}: {error}; save a state dict") from error
