"""Whether the tensors of a file are those of a module: names without wrappers' prefixes, shapes, and what differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import Tensor, nn

PREFIXES = ("module.", "model.", "_orig_mod.")
"""What DataParallel, Lightning and torch.compile put before each key."""
COUNT = "num_batches_tracked"
"""End of the one name that a file may lack, or have too much."""


class Difference(NamedTuple):
    """One tensor that a file and a module do not have in common; ``None`` for absent."""

    key: str
    found: tuple[int, ...] | None
    """Shape in the file."""
    expected: tuple[int, ...] | None
    """Shape in the module."""

    def __str__(self) -> str:
        if self.found is None:
            return f"{self.key} {self.expected} is missing in the file"
        if self.expected is None:
            return f"{self.key} {self.found} is not in the architecture"
        return f"{self.key} has shape {self.found}, the architecture expects {self.expected}"


def spellings(state: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Return ``state`` and every shorter spelling that dropping a prefix of all its keys gives, shortest last.

    Example:
        >>> import torch
        >>> [list(names) for names in spellings({"module.model.w": torch.zeros(1)})]
        [['module.model.w'], ['model.w'], ['w']]
    """
    found = [state]
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in found[-1])), ""):
        found.append({key.removeprefix(prefix): value for key, value in found[-1].items()})
    return found


def differences(module: nn.Module, state: Mapping[str, Tensor]) -> Iterator[Difference]:
    """Yield every tensor whose name or shape is not the same in both."""
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    for key, shape in expected.items():
        if key not in state and not key.endswith(COUNT):
            yield Difference(key, None, shape)
        elif key in state and tuple(state[key].shape) != shape:
            yield Difference(key, tuple(state[key].shape), shape)
    for key, value in state.items():
        if key not in expected and not key.endswith(COUNT):
            yield Difference(key, tuple(value.shape), None)


def load_into(module: nn.Module, candidates: list[dict[str, Tensor]]) -> bool:
    """Load the first spelling that fits ``module`` wholly; return whether one did."""
    for names in candidates:
        if not any(differences(module, names)):
            module.load_state_dict(names, strict=False)  # what is not there is a count of batches
            return True
    return False
