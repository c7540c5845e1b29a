"""What criteria ask for, gathered from a copy of the network on some images."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rctk.data.split import Split
from rctk.models.selection import Selection
from rctk.prune.coupling import Coupling, Member
from rctk.prune.criterion import ChannelGroup, Need
from rctk.prune.surgery import column
from rctk_export.input_spec import InputSpec

MINIBATCH = 32


class Evidence:
    """Gathers channel groups.

    Args:
        module: Maps normalised images to logits; copied, and in evaluation mode whatever mode it was in.
        split: Images and labels for the criteria that look at data.
        spec: Normalisation.
    """

    def __init__(self, module: nn.Module, split: Split, spec: InputSpec) -> None:
        self._module = copy.deepcopy(module).eval()
        device = next(module.parameters()).device
        mean, std = (torch.from_numpy(array) for array in spec.mean_std())
        self._images = ((torch.from_numpy(split.images) - mean) / std).to(device)
        self._labels = torch.from_numpy(split.labels).to(device)

    def group(self, coupling: Coupling, need: Need) -> ChannelGroup | None:
        """Return the group with what ``need`` says; ``None`` where this network has it not."""
        producers = tuple(self._producers(coupling))
        group = ChannelGroup(name=coupling.name, producers=producers, labels=self._labels)
        if not producers or need == "weights":
            return group if producers else None
        if need == "slopes":
            return replace(group, slopes=self._group_slopes(coupling))
        if need == "removal":
            return replace(group, logits=self._logits, without=lambda channel: self._without(coupling, channel))
        if need == "gains":
            found = replace(group, gains=tuple(self._gains(coupling)))
        else:
            found = replace(group, maps=tuple(self._maps(coupling)))
        return found if found.gains or found.maps else None

    def _layer(self, member: Member) -> nn.Module:
        return self._module.get_submodule(member.layer)

    def _producers(self, coupling: Coupling) -> Iterator[Tensor]:
        for member in coupling.members:
            layer = self._layer(member)
            if member.side == "out" and member.complete and not isinstance(layer, Selection):
                weight = layer.weight
                assert isinstance(weight, Tensor)
                rows = torch.tensor(member.positions, device=weight.device)
                yield weight.detach().flatten(1)[rows].flatten(1)

    def _gains(self, coupling: Coupling) -> Iterator[Tensor]:
        for member in coupling.members:
            layer = self._layer(member)
            if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)) and layer.affine and member.complete:
                places = torch.tensor(member.positions, device=layer.weight.device)
                yield layer.weight.detach()[places].mean(dim=1)

    @cached_property
    def _slopes(self) -> dict[str, Tensor]:
        """For each layer ``(M, I)``: derivative of the loss by a factor on each of its input channels.

        The derivative by a factor on an input is the sum over the weights that read it of weight times gradient.
        """
        layers = {
            name: layer
            for name, layer in self._module.named_modules()
            if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear))
        }
        weights = [layer.weight.requires_grad_() for layer in layers.values()]
        found: dict[str, list[Tensor]] = {name: [] for name in layers}
        for x, y in zip(self._images.split(MINIBATCH), self._labels.split(MINIBATCH), strict=True):
            with torch.enable_grad():
                loss = F.cross_entropy(self._module(x), y)
                gradients = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
            for (name, layer), weight, gradient in zip(layers.items(), weights, gradients, strict=True):
                product = (weight.detach() * gradient).flatten(2).sum(2) if weight.ndim > 2 else weight * gradient
                groups = int(getattr(layer, "groups", 1))
                found[name].append(product.detach().unflatten(0, (groups, -1)).sum(dim=1).flatten())
        return {name: torch.stack(values) for name, values in found.items()}

    def _group_slopes(self, coupling: Coupling) -> Tensor:
        total = torch.zeros((math.ceil(len(self._labels) / MINIBATCH), coupling.channels), device=self._labels.device)
        for member in coupling.members:
            if member.side == "in":
                for channel, places in enumerate(member.positions):
                    total[:, channel] += self._slopes[member.layer][:, list(places)].sum(dim=1)
        return total

    @cached_property
    def _logits(self) -> Tensor:
        with torch.no_grad():
            return self._module(self._images)  # type: ignore[no-any-return]

    def _without(self, coupling: Coupling, channel: int) -> Tensor:
        """Return the logits when no layer reads ``channel``; the weights are put back."""
        columns = [
            column(self._layer(member), place)
            for member in coupling.members
            if member.side == "in"
            for place in member.positions[channel]
        ]
        with torch.no_grad():
            kept = [each.clone() for each in columns]
            for each in columns:
                each.zero_()
            logits: Tensor = self._module(self._images)
            for each, old in zip(columns, kept, strict=True):
                each.copy_(old)
        return logits

    def _maps(self, coupling: Coupling) -> Iterator[Tensor]:
        seen: dict[str, Tensor] = {}
        members = [member for member in coupling.members if member.side == "in" and member.complete]
        handles = []
        for member in members:

            def look(_: nn.Module, given: tuple[Tensor, ...], name: str = member.layer) -> None:
                seen[name] = given[0].detach()

            handles.append(self._layer(member).register_forward_pre_hook(look))
        try:
            with torch.no_grad():
                self._module(self._images)
        finally:
            for handle in handles:
                handle.remove()
        for member in members:
            yield _as_maps(seen[member.layer], member, tokens=isinstance(self._layer(member), nn.Linear))


def _as_maps(values: Tensor, member: Member, *, tokens: bool) -> Tensor:
    """Return ``(N, C, H, W)`` of what a layer read: a map, a vector made by flattening one, a sequence, or tokens.

    Tokens ``(N, *T, C)``, and vectors as a single one, have their channels last. Values whose plane is not known make a
    square where their number allows it, and a row otherwise.
    """
    places = torch.tensor(member.positions, device=values.device)
    ordered = values.movedim(-1, 1) if tokens else values
    if ordered.ndim == 4:
        return ordered[:, places[:, 0]]
    found = ordered[:, places].flatten(2)
    side = math.isqrt(found.shape[2])
    sizes = (side, side) if side * side == found.shape[2] else (1, found.shape[2])
    return found.reshape(*found.shape[:2], *sizes)
