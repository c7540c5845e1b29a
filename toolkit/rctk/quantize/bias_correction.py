"""``quant.bias_correction``: biases take back the mean error that rounded weights make."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import onnx
import torch
from torch import Tensor

from rctk.compress.step import Context, Draft
from rctk.quantize.absorb_bias import channel_moments
from rctk.quantize.layers import BATCH, WeightLayer, draw, rounded, set_bias, weight_layers
from rctk_export.graph import Graph
from rctk_export.input_spec import FloatNCHW
from rctk_export.onnx_module import OnnxModule
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class BiasCorrection:
    """Empirical bias correction: ``b <- b - (E[W_rounded x_rounded] - E[W x])`` per output channel.

    Layers take turns in the order of the network, so that a layer also mends the mean error that is left in front of
    it. Weights are rounded as the draft says, activations stay float. Put it behind everything that decides weights.

    Attributes:
        samples: Training images to measure on.

    Reference:
        Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2
        and appendix D. https://arxiv.org/abs/1906.04721
    """

    kind: ClassVar[Literal["graph"]] = "graph"
    role: ClassVar[str] = "biases"
    samples: int = 256

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise OptionError(f"quant.bias_correction needs at least 1 sample, got {self.samples}")

    def __call__(self, draft: Draft, context: Context) -> Draft:
        """See :class:`rctk.compress.step.GraphStep`."""
        images = draw(context.train, self.samples, context.seed)
        layers = weight_layers(draft)
        expected = channel_moments(draft.model, [layer.output for layer in layers], images)
        module = OnnxModule(draft.model).requires_grad_(False)
        for layer in layers:
            module.initializers[layer.initializer].copy_(torch.from_numpy(rounded(draft.formats, layer)))
        shifts: dict[str, np.ndarray] = {}
        with context.progress.stage("correct biases", len(layers)) as step:
            for layer in layers:
                shift = torch.from_numpy(expected[layer.output][0]) - _mean(module, layer, images)
                shifts[layer.name] = shift.numpy()
                module.rewrite[layer.output] = _Shift(shift.float())
                step(1)
        largest = max((float(np.abs(shift).max()) for shift in shifts.values()), default=0.0)
        changed = replace(draft, model=_corrected(draft.model, layers, shifts))
        return changed.noted("quant.bias_correction", samples=len(images), largest_shift=largest)


@dataclass(frozen=True)
class _Shift:
    """A hook that adds one number per channel."""

    shift: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        return values + self.shift.reshape(-1, *[1] * (values.ndim - 2))


def _mean(module: OnnxModule, layer: WeightLayer, images: FloatNCHW) -> Tensor:
    total, count = torch.zeros(len(layer.weight), dtype=torch.float64), 0
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            value = module.observe(torch.from_numpy(images[start : start + BATCH]), [layer.output])[layer.output]
            flat = value.transpose(0, 1).flatten(1)
            total += flat.sum(dim=1, dtype=torch.float64)
            count += flat.shape[1]
    return total / count


def _corrected(model: onnx.ModelProto, layers: list[WeightLayer], shifts: dict[str, np.ndarray]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = Graph(copy)
    nodes = {node.name: node for node in graph.nodes}
    for layer in layers:
        set_bias(graph, nodes[layer.name], layer.bias + shifts[layer.name])
    return graph.finish()
