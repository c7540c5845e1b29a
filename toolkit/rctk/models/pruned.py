"""Pruned networks without code of their own: an architecture, with every width read from the weights.

``--arch pruned:resnet56-b`` builds ``resnet56-b`` and fits it to the file: channels, groups, removed blocks, and
zero-padded shortcuts that became convolutions. It reads pruned networks of other tools too, as long as names are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from rctk.models.resize import RESIZABLE, adopt
from rctk.models.selection import Selection, padded_shortcuts
from rctk_kernels.errors import ModelError

PREFIX = "pruned:"


def fit_widths(module: nn.Module, state: Mapping[str, Tensor], image_shape: tuple[int, int, int]) -> nn.Module:
    """Change ``module`` in place until its tensors have the shapes of ``state`` and return it; values are not loaded.

    A block that has no tensor in ``state`` becomes the identity, as after ``prune.layers``. What cannot be fitted is
    left as it is: whoever loads the state then names what differs.

    Args:
        module: Freshly built.
        state: Weights by name.
        image_shape: ``(C, H, W)``; images of this size find the zero-padded shortcuts.
    """
    names = {name for name, _ in module.named_modules()}
    extra = _layers_of(state) - _layers_of(module.state_dict())
    if not extra <= names:
        return module  # another network: it has layers that the architecture does not know
    if extra:
        for name, selection in _shortcuts(module, image_shape).items():
            if name in extra:
                module.set_submodule(name, selection)
    for name in list(_absent_blocks(module, state)):
        module.set_submodule(name, nn.Identity())
    for name, layer in module.named_modules():
        if isinstance(layer, RESIZABLE):
            _fit(layer, name, state)
    return module


def _shortcuts(module: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, Selection]:
    try:
        return padded_shortcuts(module, image_shape)
    except (RuntimeError, ValueError, IndexError) as error:
        shape = "x".join(str(size) for size in image_shape)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"images {shape} do not run through this architecture ({reason}); check --input") from error


def _layers_of(state: Mapping[str, Tensor]) -> set[str]:
    return {key.rpartition(".")[0] for key in state}


def _absent_blocks(module: nn.Module, state: Mapping[str, Tensor], prefix: str = "") -> Iterator[str]:
    """Yield the largest blocks of several layers without a single tensor in ``state``."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if not child.state_dict() or not any(True for _ in child.children()):
            continue
        if any(key.startswith(f"{path}.") for key in state):
            yield from _absent_blocks(child, state, f"{path}.")
        else:
            yield path


def _fit(layer: nn.Module, name: str, state: Mapping[str, Tensor]) -> None:
    own = {key: value for key, value in layer.state_dict().items() if value.ndim}
    stored = {key: state.get(f"{name}.{key}") for key in own}
    new = {key: torch.empty(value.shape) for key, value in stored.items() if value is not None}
    same_kernel = all(new[key].shape[2:] == own[key].shape[2:] and new[key].ndim == own[key].ndim for key in new)
    if len(new) == len(own) and same_kernel:
        adopt(layer, new)


def same_shapes(module: nn.Module, other: nn.Module) -> bool:
    """Tell whether two modules have tensors of the same names and shapes."""
    first, second = ({key: tuple(value.shape) for key, value in each.state_dict().items()} for each in (module, other))
    return first == second
