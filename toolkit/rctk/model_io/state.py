"""State dicts: found in what training scripts write, freed of wrappers' prefixes, fitted to a module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rctk.models import ARCHITECTURES, build_architecture
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import ModelError, RctkError

StateDict = dict[str, Tensor]

PLACES = ("state_dict", "model_state_dict", "model", "net", "module", "params", "weights")
"""Where training scripts put the state dict, in order of preference."""
PREFIXES = ("module.", "model.", "_orig_mod.")
"""What DataParallel, Lightning and torch.compile put before each key."""


def find_state_dict(content: Any, path: Path) -> StateDict | nn.Module:
    """Return the state dict in what a file held, or the module if that was pickled whole."""
    if isinstance(content, nn.Module):
        return content
    if isinstance(content, (list, tuple)):
        if len(content) != 1:
            raise ModelError(f"{path} holds a list of {len(content)} things, expected one state dict; save that alone")
        return find_state_dict(content[0], path)
    if not isinstance(content, Mapping):
        raise ModelError(f"{path} holds a {type(content).__name__}, expected a state dict; save `model.state_dict()`")
    for place in PLACES:
        if isinstance(content.get(place), (Mapping, list, tuple, nn.Module)):
            return find_state_dict(content[place], path)
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(str(key) for key in list(content)[:5]) or "nothing"
        raise ModelError(f"{path} holds no tensors (its keys: {keys}); save `model.state_dict()`")
    return tensors


def spellings(state: StateDict) -> list[StateDict]:
    """Return ``state`` and every shorter spelling that dropping a prefix of all its keys gives, shortest last.

    Example:
        >>> [list(names) for names in spellings({"module.model.w": torch.zeros(1)})]
        [['module.model.w'], ['model.w'], ['w']]
    """
    found = [state]
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in found[-1])), ""):
        found.append({key.removeprefix(prefix): value for key, value in found[-1].items()})
    return found


def build_and_fit(
    state: StateDict,
    arch: str,
    spec: InputSpec,
    classes: int | None,
    path: Path,
) -> nn.Module:
    """Build ``arch`` and load ``state`` into it; :class:`ModelError` names the first keys that differ.

    Where the number of classes is not given, it is read from the tensors of the last layer.
    """
    candidates = spellings(state)
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn only to be overwritten
        module = build_architecture(arch, classes=classes, input=spec, state_dict=candidates[-1])
        if _load(module, candidates):
            return module
        wrong = min((list(_differences(module, names)) for names in candidates), key=len)
        found = {shape[:1] for _, shape, expected in wrong if shape and expected and shape[1:] == expected[1:]}
        if classes is None and len(wrong) <= 2 and len(found) == 1:  # weight and bias of one layer: the last, we hope
            module = build_architecture(arch, classes=found.pop()[0], input=spec, state_dict=candidates[-1])
            if _load(module, candidates):
                return module
    named = "; ".join(_word(*difference) for difference in wrong[:3])
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    raise ModelError(f"{path} does not fit --arch {arch}: {named}{more}; {nearest(state, spec)}")


def _load(module: nn.Module, candidates: list[StateDict]) -> bool:
    for names in candidates:
        if not any(_differences(module, names)):
            module.load_state_dict(names, strict=False)  # what is not there is a count of batches
            return True
    return False


Difference = tuple[str, "tuple[int, ...] | None", "tuple[int, ...] | None"]


def _differences(module: nn.Module, state: StateDict) -> Iterator[Difference]:
    """Yield key, shape in the file and shape in the architecture, where these differ; ``None`` for absent."""
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    for key, shape in expected.items():
        if key not in state and not key.endswith("num_batches_tracked"):
            yield key, None, shape
        elif key in state and tuple(state[key].shape) != shape:
            yield key, tuple(state[key].shape), shape
    for key, value in state.items():
        if key not in expected and not key.endswith("num_batches_tracked"):
            yield key, tuple(value.shape), None


def _word(key: str, found: tuple[int, ...] | None, expected: tuple[int, ...] | None) -> str:
    if found is None:
        return f"{key} {expected} is missing in the file"
    if expected is None:
        return f"{key} {found} is not in the architecture"
    return f"{key} has shape {found}, the architecture expects {expected}"


def nearest(state: StateDict, spec: InputSpec | None) -> str:
    """Name the built-in architectures whose tensors agree most with ``state``, as advice for an error message."""
    shapes = {key: tuple(value.shape) for key, value in spellings(state)[-1].items()}
    scores: dict[str, float] = {}
    for name in ARCHITECTURES.names():
        try:
            with torch.device("meta"):  # shapes only
                expected = build_architecture(name, classes=None, input=spec).state_dict()
        except RctkError:  # not for images of this size
            continue
        same = sum(shapes.get(key) == tuple(value.shape) for key, value in expected.items())
        scores[name] = same / max(len(shapes), len(expected))
    best = sorted((name for name in scores if scores[name] >= 0.5), key=lambda name: -scores[name])[:3]
    if not best:
        return "no built-in architecture comes near; write a factory and give --arch FILE.py:FACTORY"
    return "nearest: " + ", ".join(f"--arch {name} ({scores[name]:.0%} of the tensors fit)" for name in best)
