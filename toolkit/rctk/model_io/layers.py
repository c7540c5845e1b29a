"""Layers that differ from what ``--arch`` makes, as plain values: how a pruned module is written and built again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from rctk_kernels.errors import ModelError

Layers = Mapping[str, Mapping[str, Any]]
"""Name of a submodule to its kind and settings."""

CONV = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
FIELDS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Conv2d: CONV,
    nn.Linear: ("in_features", "out_features"),
    nn.BatchNorm2d: ("num_features", "eps", "momentum"),
    nn.BatchNorm1d: ("num_features", "eps", "momentum"),
    nn.Identity: (),
    nn.Sequential: (),
    nn.ReLU: (),
}
"""What can be described: each attribute is also the keyword that makes the layer."""
BIASED = (nn.Conv2d, nn.Linear)
KINDS = {kind.__name__: kind for kind in FIELDS}


def changed_layers(module: nn.Module, built: nn.Module) -> dict[str, dict[str, Any]]:
    """Return the layers of ``module`` that are not as in ``built``, outer ones first; nothing for equal modules.

    Args:
        module: After pruning.
        built: What its architecture makes; weights do not matter, it may be on the ``meta`` device.

    Example:
        >>> changed_layers(nn.Sequential(nn.Linear(4, 2)), nn.Sequential(nn.Linear(4, 3)))
        {'0': {'kind': 'Linear', 'in_features': 4, 'out_features': 2, 'bias': True}}
    """
    before = dict(built.named_modules())
    changed: dict[str, dict[str, Any]] = {}
    for name, layer in module.named_modules():
        old = before.get(name)
        if type(layer) in FIELDS:
            described = describe(layer)
            if old is None or type(old) is not type(layer) or describe(old) != described:
                changed[name] = described
        elif type(old) is not type(layer):
            raise ModelError(
                f"{name or 'the module'} is a {type(layer).__name__} now, which a checkpoint cannot describe; it knows "
                f"{', '.join(KINDS)}"
            )
    present = {name for name, _ in module.named_modules()}
    parents = present - set(changed)  # a layer that was exchanged takes what was below it along
    gone = [name for name in before if name not in present and name.rpartition(".")[0] in parents]
    return {**changed, **{name: {"kind": "absent"} for name in gone}}


def describe(layer: nn.Module) -> dict[str, Any]:
    """Return kind and settings of a layer as JSON values."""
    values = {field: getattr(layer, field) for field in FIELDS[type(layer)]}
    if isinstance(layer, BIASED):
        values["bias"] = layer.bias is not None
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
    return {"kind": type(layer).__name__, **plain}


def change_layers(module: nn.Module, layers: Layers) -> None:
    """Put layers as :func:`changed_layers` described them into a freshly built module; weights are new.

    Raises:
        ModelError: A description is damaged, or names a place that the module does not have.
    """
    for name, described in layers.items():
        above, _, own = name.rpartition(".")
        try:
            parent = module.get_submodule(above)
            if described["kind"] == "absent":
                delattr(parent, own)
            else:
                parent.add_module(own, _made(described))
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"the file describes a layer {name} that cannot be made ({type(error).__name__}: {error}); save the "
                "model again"
            ) from error


def _made(described: Mapping[str, Any]) -> nn.Module:
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in described.items()}
    return KINDS[settings.pop("kind")](**settings)
