"""State dicts: found in what training scripts write, and fitted to a module."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rctk.model_io.advice import nearest, reads_pruned, shrunk
from rctk.model_io.matching import Difference, differences, load_into, spellings
from rctk.models import build_architecture
from rctk.models.pruned import PREFIX
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import ModelError

StateDict = dict[str, Tensor]

PLACES = ("state_dict", "model_state_dict", "model", "net", "module", "params", "weights")
"""Where training scripts put the state dict, in order of preference."""


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
        if load_into(module, candidates):
            return module
        wrong = min((list(differences(module, names)) for names in candidates), key=len)
        found = {shape[:1] for _, shape, expected in wrong if shape and expected and shape[1:] == expected[1:]}
        if classes is None and len(wrong) <= 2 and len(found) == 1:  # weight and bias of one layer: the last, we hope
            module = build_architecture(arch, classes=found.pop()[0], input=spec, state_dict=candidates[-1])
            if load_into(module, candidates):
                return module
    raise ModelError(f"{path} does not fit --arch {arch}: {_advice(state, arch, spec, classes, path, wrong)}")


def _advice(  # the refused call, and what came out
    state: StateDict, arch: str, spec: InputSpec, classes: int | None, path: Path, wrong: list[Difference]
) -> str:
    if shrunk(wrong) and reads_pruned(state, arch, spec, classes, path):
        first = next(each for each in wrong if each.expected is not None)
        return f"its names are there, but tensors are smaller, as after pruning ({first}); give --arch {PREFIX}{arch}"
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return f"{'; '.join(map(str, wrong[:3]))}{more}; {nearest(state, spec, path)}"
