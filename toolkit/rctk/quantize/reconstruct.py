"""Data for methods that fit the rounded weights of a layer: what it reads behind rounded layers, what it should say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rctk.compress.step import Draft
from rctk.progress import Progress
from rctk.quantize.layers import BATCH, WeightLayer, outputs, rounded, rows, weight_layers
from rctk_export.input_spec import FloatNCHW
from rctk_export.onnx_module import OnnxModule

ROWS = 16384
"""Outputs of a layer that are fitted at most, drawn evenly from all images."""
VALUES = 2**24
"""Inputs that are kept for them at most, 64 MiB."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """One layer's regression problem: ``inputs @ weight + bias`` should be ``wanted``.

    Attributes:
        layer: The layer.
        weight: Its float weight, ``(groups, I / groups * K, O / groups)``.
        bias: ``(groups, 1, O / groups)``.
        inputs: Behind layers that are rounded already, ``(groups, P, I / groups * K)``.
        wanted: Outputs of the float network at the same places, ``(groups, P, O / groups)``.
    """

    layer: WeightLayer
    weight: Tensor
    bias: Tensor
    inputs: Tensor
    wanted: Tensor


class Walk:
    """Goes through the layers of a draft in order; every layer sees the rounded weights of those in front of it.

    Args:
        draft: Its formats say how layers are rounded that nobody decides on here.
        images: Training images.
        seed: Draws the places.
    """

    def __init__(self, draft: Draft, images: FloatNCHW, seed: int) -> None:
        self.draft, self.images = draft, images
        self.layers = weight_layers(draft)
        self.generator = torch.Generator().manual_seed(seed)
        self.floats = OnnxModule(draft.model).requires_grad_(False)
        self.rounded = OnnxModule(draft.model).requires_grad_(False)

    def targets(self, progress: Progress, name: str) -> Iterator[Target]:
        """Yield one problem per layer; :meth:`settle` says how it was solved before the next one is asked for."""
        wanted, positions = self._wanted()
        with progress.stage(name, len(self.layers)) as step:
            for layer in self.layers:
                inputs = self._inputs(layer, positions[layer.name])
                yield Target(
                    layer=layer,
                    weight=grouped(torch.from_numpy(layer.weight), layer.groups),
                    bias=torch.from_numpy(layer.bias).reshape(layer.groups, 1, -1),
                    inputs=inputs,
                    wanted=wanted.pop(layer.name),
                )
                step(1)

    def settle(self, layer: WeightLayer, draft: Draft) -> None:
        """Run ``layer`` with the weight that ``draft`` stores from now on."""
        self.rounded.initializers[layer.initializer].copy_(torch.from_numpy(rounded(draft.formats, layer)))

    def _wanted(self) -> tuple[dict[str, Tensor], dict[str, list[Tensor]]]:
        """Return float outputs of every layer, and the places that were drawn in every batch of images."""
        parts: dict[str, list[Tensor]] = {layer.name: [] for layer in self.layers}
        positions: dict[str, list[Tensor]] = {layer.name: [] for layer in self.layers}
        names = [layer.output for layer in self.layers]
        with torch.inference_mode():
            for batch in self._batches():
                found = self.floats.observe(batch, names)
                for layer in self.layers:
                    y = found[layer.output]
                    width = layer.weight[0].size * layer.groups
                    count = max(min(ROWS, VALUES // width) * len(batch) // len(self.images), 1)
                    drawn = torch.randint(y.numel() // y.shape[1], (count,), generator=self.generator)
                    positions[layer.name].append(drawn)
                    parts[layer.name].append(outputs(layer, y, drawn))
        return {name: torch.cat(part, dim=1).clone() for name, part in parts.items()}, positions

    def _inputs(self, layer: WeightLayer, positions: list[Tensor]) -> Tensor:
        with torch.inference_mode():
            parts = [
                rows(layer, self.rounded.observe(batch, [layer.input])[layer.input], drawn)
                for batch, drawn in zip(self._batches(), positions, strict=True)
            ]
        return torch.cat(parts, dim=1).clone()

    def _batches(self) -> Iterator[Tensor]:
        return (torch.from_numpy(self.images[i : i + BATCH]) for i in range(0, len(self.images), BATCH))


def grouped(weight: Tensor, groups: int) -> Tensor:
    """Return a weight ``(O, I / groups, *K)`` as ``(groups, I / groups * K, O / groups)``."""
    return weight.reshape(groups, len(weight) // groups, -1).transpose(1, 2)


def ungrouped(values: Tensor, layer: WeightLayer) -> Tensor:
    """Undo :func:`grouped`; the shape of the layer's weight."""
    return values.transpose(1, 2).reshape(layer.weight.shape)
