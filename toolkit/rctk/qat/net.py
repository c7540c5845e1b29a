"""The net that is trained: the float graph with quantizers hooked into it; and the draft that it becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from rctk.compress.step import Draft
from rctk.qat.norm import LiveNorm, StoredBias, Sums
from rctk.qat.place import Places, Spot
from rctk.qat.quantizer import ActivationQuantizer, Quantizer, WeightQuantizer, along_rows
from rctk.quantize.calibrate import calibrate
from rctk.quantize.layers import WeightLayer, set_bias
from rctk.quantize.mse import Mse
from rctk_export.graph import Graph
from rctk_export.input_spec import FloatNCHW
from rctk_export.onnx_module import OnnxModule
from rctk_export.quantize.formats import Steps, Weight
from rctk_export.quantize.grid import MIN_SCALE

BATCH = 32


class Method(Protocol):
    """A family member: makes the quantizers."""

    def weight_quantizer(self, weight: Tensor, bits: int, *, per_channel: bool) -> WeightQuantizer:
        """Return the quantizer of a weight ``(O, ...)``."""
        ...

    def activation_quantizer(self, spot: Spot, reach: tuple[float, float]) -> ActivationQuantizer:
        """Return the quantizer of a tensor whose best range on calibration images is ``reach``."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """One layer of the net.

    Attributes:
        layer: Its geometry and its float weight.
        quantizer: Of its weight.
        norm: Its BatchNorm, None where it has a plain bias.
    """

    layer: WeightLayer
    quantizer: WeightQuantizer
    norm: LiveNorm | None


class QatNet(nn.Module):
    """Maps images ``(N, C, H, W)`` in [0, 1] to logits; in evaluation mode it computes what the file will.

    Args:
        places: Where quantizers go.
        method: Makes them.
        images: Training images; start of ranges and of BatchNorm statistics.
        live: Put a BatchNorm behind every layer but the last while training.
    """

    def __init__(self, places: Places, method: Method, images: FloatNCHW, *, live: bool) -> None:
        super().__init__()
        self.places = places
        self.graph = OnnxModule(places.training)
        ranges = _ranges(places, images)
        self._activations = {
            tensor: method.activation_quantizer(spot, ranges[tensor]) for tensor, spot in places.spots.items()
        }
        normed = places.layers[:-1] if live else ()
        statistics = _statistics(places, [layer.output for layer in normed], images)
        self.trained: list[Trained] = []
        for layer in places.layers:
            self._add(layer, method, statistics.get(layer.output))
        for hook, tensor in places.hooks.items():
            self.graph.rewrite[hook] = self._activations[tensor]
        self.quantizers = nn.ModuleList([*self._activations.values(), *(item.quantizer for item in self.trained)])
        self.norms = nn.ModuleList([item.norm for item in self.trained if item.norm is not None])
        self._hold_others()

    def _add(self, layer: WeightLayer, method: Method, found: tuple[Tensor, Tensor] | None) -> None:
        weight, size = torch.from_numpy(layer.weight), 1.0
        if found is not None:
            size = usual_size(weight)
            weight = weight * size
            with torch.no_grad():
                self._constant(layer.initializer).copy_(weight)
        bits, formats = self.places.bits[layer.name], self.places.draft.formats
        quantizer = method.weight_quantizer(weight, bits, per_channel=formats.per_channel)
        sums = Sums(
            weight=partial(self._constant, layer.initializer),
            weights=quantizer,
            inputs=self._activations[self.places.inputs[layer.name]],
            rounded=self.places.plan.integer_bias,
        )
        norm = None
        bias = self._bias(layer)
        if found is not None:
            mean, var = found
            plain = torch.from_numpy(layer.bias)
            norm = LiveNorm(mean - plain, var, plain, sums, size=size)
            with torch.no_grad():
                self._constant(bias).zero_()
            self.graph.rewrite[layer.output] = norm
        else:
            self.graph.rewrite[bias] = StoredBias(sums)
        self.graph.rewrite[layer.initializer] = quantizer
        self.trained.append(Trained(layer=layer, quantizer=quantizer, norm=norm))

    def _constant(self, name: str) -> Tensor:
        return self.graph.initializers[name]

    def _bias(self, layer: WeightLayer) -> str:
        return next(str(node.input[2]) for node in self.places.training.graph.node if node.name == layer.name)

    def _hold_others(self) -> None:
        """Train weights of trained layers, their biases where no BatchNorm replaces them, and layers in float."""
        trained = {item.layer.initializer for item in self.trained}
        trained |= {self._bias(item.layer) for item in self.trained if item.norm is None}
        graph = Graph(self.places.training)
        floating = {
            name for node in graph.nodes if node.name in self.places.draft.keep_float for name in node.input if name
        }
        for name, value in self.graph.initializers.items():
            if isinstance(value, nn.Parameter):
                value.requires_grad_(name in trained | floating)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, K)``."""
        logits: Tensor = self.graph(images)
        return logits

    def after_epoch(self, done: float, *, freeze: float) -> None:
        """Tell the quantizers how far the training is; BatchNorm statistics rest once a share ``freeze`` is over."""
        for quantizer in self.quantizers:
            if isinstance(quantizer, Quantizer):
                quantizer.after_epoch(done)
        for norm in self.norms:
            if isinstance(norm, LiveNorm) and done >= freeze:
                norm.frozen.fill_(value=True)

    def draft(self) -> Draft:
        """Return the draft with the trained weights, and their codes and grids exactly as they were trained."""
        self.eval()
        draft = self.places.draft
        graph = Graph(_copied(draft))
        nodes = {node.name: node for node in graph.nodes}
        for name, value in self.graph.initializers.items():
            if isinstance(value, nn.Parameter) and value.requires_grad and name in graph.constants:
                graph.constants[name] = value.detach().cpu().numpy().astype(np.float32)
        weights = {}
        for item in self.trained:
            stored, bias = self._stored(item)
            weights[item.layer.name] = stored
            assert stored.codes is not None
            scales = along_rows(torch.from_numpy(stored.scales), stored.codes.ndim).numpy()
            graph.rewrite_constant(nodes[item.layer.name], 1, (stored.codes * scales).astype(np.float32))
            set_bias(graph, nodes[item.layer.name], bias.detach().numpy())
        steps = self.grids()
        draft = replace(draft, model=graph.finish())
        return draft.with_formats(weights={**draft.formats.weights, **weights}, steps={**draft.formats.steps, **steps})

    def grids(self) -> dict[str, Steps]:
        """Return the grid of every quantized tensor."""
        return {tensor: quantizer.steps() for tensor, quantizer in self._activations.items()}

    @torch.no_grad()
    def _stored(self, item: Trained) -> tuple[Weight, Tensor]:
        """Return codes and scales of a layer with its BatchNorm folded in, and its bias ``(O,)``."""
        latent = self._constant(item.layer.initializer).detach().contiguous()
        codes, scales = item.quantizer.codes(latent), item.quantizer.scale(latent)
        if item.norm is None:
            name = self._bias(item.layer)
            bias = self.graph.rewrite[name](self._constant(name))
        else:
            factor, bias = item.norm.affine()
            scales = scales * factor.abs()
            codes = codes * along_rows(factor.sign(), codes.ndim)
        codes = torch.where(along_rows(scales < MIN_SCALE, codes.ndim), 0.0, codes)  # engines take no smaller scale
        scales = scales.clamp_min(MIN_SCALE).float()
        return Weight(scales=scales.numpy(), codes=codes.to(torch.int8).numpy()), bias.float()


def usual_size(weight: Tensor) -> float:
    """Return what brings a weight ``(O, ...)`` to the root mean square of a fresh one, ``sqrt(2 / fan-in)``.

    A BatchNorm behind it takes the factor out again, and learning rates mean what they do in ordinary training: the
    smaller such a weight, the further a step turns it, and folding has left weights of any size.
    """
    root = float(weight.square().mean().sqrt())
    return float(np.sqrt(2 / weight[0].numel())) / root if root > 0 else 1.0


def _copied(draft: Draft) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(draft.model)
    return copy


def _ranges(places: Places, images: FloatNCHW) -> Mapping[str, tuple[float, float]]:
    """Return the range of every grid with the least squared error."""
    bits: Callable[[str], int] = lambda tensor: places.spots[tensor].bits  # noqa: E731
    return calibrate(places.draft.model, list(places.spots), images, Mse(), bits=bits)


def _statistics(places: Places, tensors: list[str], images: FloatNCHW) -> dict[str, tuple[Tensor, Tensor]]:
    """Return mean and variance of every channel of the float graph's tensors, ``(C,)`` each."""
    if not tensors:
        return {}
    module = OnnxModule(places.draft.model)
    sums = {name: [torch.zeros(()), torch.zeros(())] for name in tensors}
    counts = dict.fromkeys(tensors, 0)
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            batch = torch.from_numpy(images[start : start + BATCH])
            for name, values in module.observe(batch, tensors).items():
                rows = values.transpose(0, 1).flatten(1).double()
                sums[name][0] = sums[name][0] + rows.sum(dim=1)
                sums[name][1] = sums[name][1] + rows.square().sum(dim=1)
                counts[name] += rows.shape[1]
    found = {}
    for name, (first, second) in sums.items():
        mean = first / counts[name]
        found[name] = (mean.float().clone(), (second / counts[name] - mean.square()).clamp_min(0).float().clone())
    return found
