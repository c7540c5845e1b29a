"""Layers take on other widths: their sizes and groups follow from the tensors they are given."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

RESIZABLE = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.PReLU)
"""Layers that :func:`adopt` knows."""


def depthwise(layer: nn.Module) -> bool:
    """Tell whether ``layer`` is a convolution with one filter for each channel.

    Example:
        >>> depthwise(nn.Conv2d(4, 4, 3, groups=4)), depthwise(nn.Conv2d(4, 8, 3, groups=4))
        (True, False)
    """
    if not isinstance(layer, (nn.Conv1d, nn.Conv2d)):
        return False
    return layer.groups == layer.in_channels == layer.out_channels > 1


def adopt(layer: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give ``layer`` new values for some of its parameters and buffers; its sizes become theirs.

    A depthwise convolution stays depthwise, any other keeps its number of groups. A parameter that was frozen stays
    frozen.

    Args:
        layer: One of :data:`RESIZABLE`.
        tensors: New values by their names in the layer, such as ``weight`` or, where that is computed from others,
            ``parametrizations.weight.original0``.

    Example:
        >>> layer = nn.Linear(3, 4)
        >>> adopt(layer, {"weight": layer.weight[:2], "bias": layer.bias[:2]})
        >>> layer
        Linear(in_features=3, out_features=2, bias=True)
    """
    single = depthwise(layer)
    for name, value in tensors.items():
        owner, _, own = name.rpartition(".")
        holder, new = layer.get_submodule(owner), value.detach().clone()
        old = getattr(holder, own)
        setattr(
            holder, own, nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new
        )
    if isinstance(layer, (nn.Conv1d, nn.Conv2d)):
        layer.out_channels = len(layer.weight)
        layer.groups = layer.out_channels if single else layer.groups
        layer.in_channels = layer.weight.shape[1] * layer.groups
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = len(layer.weight)
    elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
        layer.num_features = len(next(value for value in tensors.values() if value.ndim))
