"""Which channels of which layers stand or fall together, from Torch-Pruning's dependency graph.

Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023. https://arxiv.org/abs/2301.12900
Torch-Pruning finds the dependencies; scores, choice, surgery and counting are ours.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from rctk.models.resize import RESIZABLE, depthwise
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import ModelError

Side = Literal["out", "in", "both"]
SLACK = 4
"""Positions that channels may seem to have anywhere, in units of the widest side of a layer; more are misread."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One side of one layer.

    Attributes:
        layer: Its name in the module.
        side: ``out`` or ``in`` for convolutions and linear layers; ``both`` where these are the same channels, as in
            BatchNorm and depthwise convolutions.
        positions: For channel ``c`` of the coupling the positions on that side: one, several after a flatten, or none
            where a concatenation brings in channels of others.
    """

    layer: str
    side: Side
    positions: tuple[tuple[int, ...], ...]

    @property
    def complete(self) -> bool:
        """Whether every channel has a position here."""
        return all(self.positions)


@dataclass(frozen=True, kw_only=True)
class Coupling:
    """Channels that run through several layers.

    Attributes:
        name: Of the layer that the channels were followed from.
        channels: ``C``.
        members: Every side of every layer that they reach.
        sets: Channels that must go together: one each, or one of each group where a grouped convolution is met.
    """

    name: str
    channels: int
    members: tuple[Member, ...]
    sets: tuple[tuple[int, ...], ...]


class Couplings(NamedTuple):
    """What can be pruned, and what stays whole: its name and the reason."""

    free: tuple[Coupling, ...]
    whole: dict[str, str]


def find_couplings(module: nn.Module, spec: InputSpec) -> Couplings:
    """Follow the channels of every convolution and linear layer through ``module``.

    The outputs of the classifier stay whole, and so does what cannot be pruned safely.

    Args:
        module: Its zero-padded shortcuts have been replaced, see :mod:`rctk.models.selection`.
        spec: Shape of its images.

    Raises:
        ModelError: Torch-Pruning cannot follow this module.
    """
    names = {layer: name for name, layer in module.named_modules()}
    free, whole = [], {}
    with _bounded(SLACK * _widest(module)):
        graph = _graph(module, spec)
        ends = {id(node.module) for node in graph.module2node.values() if not node.outputs}
        for name, group in _groups(graph, names):
            found = group if isinstance(group, str) else _coupling(name, group, names, ends)
            if isinstance(found, Coupling):
                free.append(found)
            else:
                whole[name] = found
    return Couplings(tuple(free), whole)


def _groups(graph: Any, names: dict[nn.Module, str]) -> Iterator[tuple[str, Any | str]]:
    """Yield Torch-Pruning's group of every layer whose outputs are in none before, or why there is none."""
    seen: set[nn.Module] = set()
    for layer in list(graph.module2node):
        if not isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear)) or layer in seen:
            continue
        pruner = graph.get_pruner_of_module(layer)
        try:
            group = graph.get_pruning_group(layer, pruner.prune_out_channels, list(range(len(layer.weight))))
        except Exception as error:  # noqa: BLE001  # it walks over whatever graph the module has
            yield names[layer], f"Torch-Pruning cannot follow its channels ({type(error).__name__}: {error})"
            continue
        seen |= {item.dep.target.module for item in group if graph.is_out_channel_pruning_fn(item.dep.handler)}
        yield names[layer], group


def _widest(module: nn.Module) -> int:
    layers = (layer for layer in module.modules() if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear)))
    return max(
        (max(layer.weight.shape[0], layer.weight.shape[1] * getattr(layer, "groups", 1)) for layer in layers), default=1
    )


@contextmanager
def _bounded(most: int) -> Iterator[None]:
    """Make Torch-Pruning 1.6 stop where it would follow channels for ever, and pass over reshapes that it misreads.

    It counts the channels of a flattened map anew each time that it comes back to one, and divides by zero at the
    reshapes of a channel shuffle. Couplings on such a way do not survive :func:`rctk.prune.trial.understood`.
    """
    from torch_pruning.dependency import group, index_mapping  # noqa: PLC0415

    add, reshape = group.Group.add_dep, index_mapping.update_reshape_index_mapping

    def checked(self: Any, dep: Any, idxs: Any) -> None:
        if len(idxs) > most:
            raise ModelError(f"one group has more than {most:,} positions")
        add(self, dep, idxs)

    def passing(graph: Any, node: Any) -> None:
        with suppress(ZeroDivisionError):
            reshape(graph, node)

    group.Group.add_dep, index_mapping.update_reshape_index_mapping = checked, passing
    try:
        yield
    finally:
        group.Group.add_dep, index_mapping.update_reshape_index_mapping = add, reshape


def _graph(module: nn.Module, spec: InputSpec) -> Any:
    import torch_pruning  # noqa: PLC0415  its import takes a second

    modes = [(child, child.training) for child in module.modules()]
    frozen = [parameter for parameter in module.parameters() if not parameter.requires_grad]
    device = next(module.parameters()).device
    example = torch.zeros((2, *spec.shape), device=device)
    graph = torch_pruning.DependencyGraph()
    try:
        for parameter in frozen:  # the graph is that of autograd
            parameter.requires_grad_()
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return graph.build_dependency(module, example_inputs=example, verbose=False)
    except Exception as error:  # tracing runs the module and meets whatever it does
        raise ModelError(
            f"Torch-Pruning cannot follow the channels of this module ({type(error).__name__}: {error}); prune with "
            "prune.nm24 or prune.layers"
        ) from error
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        for child, training in modes:
            child.training = training


def _coupling(name: str, group: Any, names: dict[nn.Module, str], ends: set[int]) -> Coupling | str:
    """Return the coupling of one of Torch-Pruning's groups, or why it must stay whole."""
    channels = len(group[0].idxs)
    members: list[Member] = []
    layers: list[nn.Module] = []
    for item in group:
        layer = item.dep.target.module
        kind = item.dep.target.type.name
        out = item.dep.handler.__name__ == "prune_out_channels"
        if kind == "OUTPUT" or (id(layer) in ends and out):
            return "its channels are the outputs of the network"
        if kind in {"PARAMETER", "CUSTOMIZED"} or (layer in names and _sized(layer) and not _supported(layer)):
            return f"{names.get(layer, kind)} ({type(layer).__name__}) cannot lose channels"
        if not isinstance(layer, RESIZABLE) or (isinstance(layer, nn.PReLU) and layer.num_parameters == 1):
            continue
        positions = _positions(item, channels)
        side = _side(layer, out=out)
        if positions is None or max(item.idxs) >= _size(layer, side):
            return f"the channels that {names[layer]} sees cannot be told apart"
        members.append(Member(layer=names[layer], side=side, positions=positions))
        layers.append(layer)
    sets = _sets(channels, list(zip(members, layers, strict=True)))
    if sets is None:
        return "its grouped convolutions do not share their groups"
    if len(sets) < 2:
        return "its grouped convolutions leave nothing to choose" if channels > 1 else "there is one alone"
    return Coupling(name=name, channels=channels, members=tuple(members), sets=sets)


def _sized(layer: nn.Module) -> bool:
    own = any(True for _ in layer.parameters(recurse=False)) or is_parametrized(layer)
    return own or isinstance(layer, (nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm2d))


def _supported(layer: nn.Module) -> bool:
    if is_parametrized(layer):
        return False  # its weight is computed from others, as by weight_norm
    if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
        return layer.track_running_stats
    if isinstance(layer, (nn.Conv1d, nn.Conv2d)) and layer.groups == layer.out_channels > 1:
        return depthwise(layer)  # one filter for several inputs is no plain case of either kind
    return isinstance(layer, RESIZABLE)


def _side(layer: nn.Module, *, out: bool) -> Side:
    if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.PReLU)) or depthwise(layer):
        return "both"
    return "out" if out else "in"


def _size(layer: nn.Module, side: Side) -> int:
    """Return how many channels one side of a layer has."""
    if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
        return layer.num_features
    assert isinstance(layer.weight, Tensor)
    return len(layer.weight) if side != "in" else layer.weight.shape[1] * int(getattr(layer, "groups", 1))


def _positions(item: Any, channels: int) -> tuple[tuple[int, ...], ...] | None:
    """Return the positions of every channel; ``None`` where two channels share one."""
    found: list[list[int]] = [[] for _ in range(channels)]
    seen: dict[int, int] = {}
    for position, root in zip(item.idxs, item.root_idxs, strict=True):
        if root is None or seen.setdefault(position, root) != root:
            return None
        found[root].append(position)
    return tuple(tuple(sorted(set(places))) for places in found)


def _sets(channels: int, members: list[tuple[Member, nn.Module]]) -> tuple[tuple[int, ...], ...] | None:
    """Return the channels that go together; ``None`` where grouped convolutions contradict each other."""
    counts = set(_group_counts(channels, members))
    if None in counts:
        return None
    most = max((count for count in counts if count is not None), default=1)
    if any(most % count for count in counts if count is not None):
        return None
    size = channels // most
    return tuple(tuple(first + group * size for group in range(most)) for first in range(size))


def _group_counts(channels: int, members: list[tuple[Member, nn.Module]]) -> Iterator[int | None]:
    straight = tuple((channel,) for channel in range(channels))
    for member, layer in members:
        if isinstance(layer, (nn.Conv1d, nn.Conv2d)) and layer.groups > 1 and not depthwise(layer):
            size = layer.out_channels if member.side == "out" else layer.in_channels
            fits = member.positions == straight and size == channels
            yield layer.groups if fits else None
