"""``quant.absorb_bias``: what a channel always has on top moves through the ReLU into the next bias."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import onnx
import torch

from rctk.compress.step import Context, Draft
from rctk.quantize.chains import Link, by_channel, links
from rctk.quantize.layers import BATCH, draw, set_bias
from rctk_export.graph import Graph, attributes
from rctk_export.input_spec import FloatNCHW
from rctk_export.onnx_module import OnnxModule
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class AbsorbBias:
    """High-bias absorption, useful behind ``quant.equalize``, which can make biases and so activations large.

    ``c = max(0, mean - deviations * std)`` of what enters the ReLU, measured per channel on training images, leaves the
    first bias, and ``W2 c`` enters the second. That is exact where the ReLU would never have cut below ``c`` and the
    second layer does not pad with zeros; pairs whose second layer pads are left alone.

    Attributes:
        deviations: Standard deviations below the mean that may still be cut.
        samples: Training images to measure on.

    Reference:
        Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.1.3
        (with statistics measured instead of those of BatchNorm). https://arxiv.org/abs/1906.04721
    """

    kind: ClassVar[Literal["graph"]] = "graph"
    role: ClassVar[str] = "weights"
    deviations: float = 3.0
    samples: int = 256

    def __post_init__(self) -> None:
        if self.deviations < 0 or self.samples < 1:
            raise OptionError("quant.absorb_bias needs deviations of 0 or more and at least 1 sample")

    def __call__(self, draft: Draft, context: Context) -> Draft:
        """See :class:`rctk.compress.step.GraphStep`."""
        copy = onnx.ModelProto()
        copy.CopyFrom(draft.model)
        graph = Graph(copy)
        found = [link for link in links(graph) if _exact(graph, link)]
        if not found:
            return draft.noted("quant.absorb_bias", channels={})
        images = draw(context.train, self.samples, context.seed)
        moments = channel_moments(draft.model, [link.first.output[0] for link in found], images)
        moved = {}
        for link in found:
            mean, std = moments[link.first.output[0]]
            surplus = np.maximum(mean - self.deviations * std, 0)
            if surplus.any():
                _move(graph, link, surplus)
                moved[link.first.name] = int((surplus > 0).sum())
        return replace(draft, model=graph.finish()).noted("quant.absorb_bias", channels=moved)


def _exact(graph: Graph, link: Link) -> bool:
    """Whether a constant passes from one bias to the other: only ReLU between them, no padding behind it."""
    only_relu = link.rectified and all(node.op_type in {"Relu", "Identity"} for node in link.between)
    settings = attributes(link.second)
    padded = any(settings.get("pads", ())) or settings.get("auto_pad", b"NOTSET") != b"NOTSET"
    return only_relu and not padded and graph.constant(link.first, 2) is not None


def _move(graph: Graph, link: Link, surplus: npt.NDArray[np.float64]) -> None:
    bias1, bias2, weight2 = (graph.constant(*at) for at in ((link.first, 2), (link.second, 2), (link.second, 1)))
    assert bias1 is not None
    assert weight2 is not None
    added = (by_channel(link, weight2).sum(axis=3) * surplus.reshape(link.groups, 1, -1)).sum(axis=2).reshape(-1)
    set_bias(graph, link.first, bias1.reshape(-1) - surplus)
    set_bias(graph, link.second, added if bias2 is None else bias2.reshape(-1) + added)


def channel_moments(
    model: onnx.ModelProto, tensors: list[str], images: FloatNCHW
) -> dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Return mean and standard deviation per channel of some tensors, each ``(C,)`` float64."""
    module = OnnxModule(model)
    sums: dict[str, Any] = dict.fromkeys(tensors, 0.0)
    squares: dict[str, Any] = dict.fromkeys(tensors, 0.0)
    counts = dict.fromkeys(tensors, 0)
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            for name, value in module.observe(torch.from_numpy(images[start : start + BATCH]), tensors).items():
                flat = value.transpose(0, 1).flatten(1).double()
                sums[name] = sums[name] + flat.sum(dim=1)
                squares[name] = squares[name] + flat.square().sum(dim=1)
                counts[name] += flat.shape[1]
    found = {}
    for name in tensors:
        mean = sums[name] / counts[name]
        std = (squares[name] / counts[name] - mean**2).clamp(min=0).sqrt()
        found[name] = (mean.numpy(), std.numpy())
    return found
