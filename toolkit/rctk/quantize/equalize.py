"""``quant.equalize``: channels that follow each other get weights of equal range; the function stays what it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import onnx
import torch

from rctk.compress.step import Context, Draft
from rctk.quantize.chains import Link, by_channel, links
from rctk.quantize.layers import BATCH, draw
from rctk_export.graph import Graph
from rctk_export.onnx_module import OnnxModule
from rctk_export.quantize.plan_cpu import clip_bounds
from rctk_kernels.errors import MismatchError

Array = npt.NDArray[Any]
ROUNDS, DONE = 50, 1e-3
CHECK_IMAGES, CHECK_AGREEMENT = 256, 0.99


@dataclass(frozen=True, kw_only=True)
class Equalize:
    """Cross-layer equalization, before any grid is chosen.

    For layers ``W1``, ``W2`` with a ReLU (or pooling) between them, output channel ``i`` of ``W1`` is divided by
    ``s = sqrt(r1 / r2)`` and input channel ``i`` of ``W2`` multiplied by it, ``r1`` and ``r2`` being the largest
    magnitudes there. Pairs take turns until all are equal, so chains with depthwise convolutions are covered. It helps
    where one scale serves several channels: weights per tensor, and always activations.

    Attributes:
        relu6: A bounded activation is no multiple of itself. ``replace`` makes ReLU6 a ReLU first and checks on
            training images that 99 % of the classes stay; ``keep`` leaves it, and the pairs around it, as they are.

    Reference:
        Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, eq. 10-11.
        https://arxiv.org/abs/1906.04721
    """

    kind: ClassVar[Literal["graph"]] = "graph"
    role: ClassVar[str] = "weights"
    relu6: Literal["replace", "keep"] = "replace"

    def __call__(self, draft: Draft, context: Context) -> Draft:
        """See :class:`rctk.compress.step.GraphStep`."""
        model, facts = draft.model, {}
        if self.relu6 == "replace" and bounded(Graph(_copy(model))):
            model, agreement = unbounded(model, draw(context.train, CHECK_IMAGES, context.seed))
            facts["relu6_agreement"] = agreement
        changed, pairs, spread = equalized(model)
        return replace(draft, model=changed).noted("quant.equalize", pairs=pairs, largest_scale=spread, **facts)


def equalized(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str], float]:
    """Return an equalized copy of ``model``, its pairs as ``first -> second``, and the largest factor used."""
    graph = Graph(_copy(model))
    found = links(graph)
    total = {id(link): np.ones(link.channels) for link in found}
    for _ in range(ROUNDS):
        largest = 0.0
        for link in found:
            scale = _scale(graph, link)
            rescale(graph, link, scale)
            total[id(link)] *= scale
            largest = max(largest, float(np.abs(np.log(scale)).max()))
        if largest < DONE:
            break
    spread = max((float(np.exp(np.abs(np.log(scale)).max())) for scale in total.values()), default=1.0)
    return graph.finish(), [f"{link.first.name} -> {link.second.name}" for link in found], spread


def _scale(graph: Graph, link: Link) -> npt.NDArray[np.float64]:
    weight1, weight2 = graph.constant(link.first, 1), graph.constant(link.second, 1)
    assert weight1 is not None
    assert weight2 is not None
    range1 = np.abs(weight1.reshape(link.channels, -1)).max(axis=1).astype(np.float64)
    range2 = np.abs(by_channel(link, weight2)).max(axis=(1, 3)).reshape(-1).astype(np.float64)
    alive = (range1 > 0) & (range2 > 0)  # a dead channel has no range to share
    ratio = np.divide(range1, range2, out=np.ones_like(range1), where=alive)
    return np.asarray(np.sqrt(ratio), dtype=np.float64)


def rescale(graph: Graph, link: Link, scale: Array) -> None:
    """Divide the channels of ``link.first`` by ``scale`` ``(C,)``, and let ``link.second`` multiply by it."""
    weight1, bias1 = graph.constant(link.first, 1), graph.constant(link.first, 2)
    weight2 = graph.constant(link.second, 1)
    assert weight1 is not None
    assert weight2 is not None
    divisor = scale.reshape(-1, *[1] * (weight1.ndim - 1))
    graph.rewrite_constant(link.first, 1, (weight1 / divisor).astype(np.float32))
    if bias1 is not None:
        bias = np.broadcast_to(bias1.reshape(-1), scale.shape) / scale
        graph.rewrite_constant(link.first, 2, bias.astype(np.float32))
    factors = scale.reshape(link.groups, 1, -1, 1)
    graph.rewrite_constant(
        link.second, 1, (by_channel(link, weight2) * factors).reshape(weight2.shape).astype(np.float32)
    )


def bounded(graph: Graph) -> list[onnx.NodeProto]:
    """Return the nodes that clip to 0 and a positive bound, such as ReLU6."""
    clips = [node for node in graph.nodes if node.op_type == "Clip"]
    return [node for node in clips if clip_bounds(graph, node)[0] == 0 < clip_bounds(graph, node)[1] < np.inf]


def unbounded(model: onnx.ModelProto, images: npt.NDArray[np.float32]) -> tuple[onnx.ModelProto, float]:
    """Return ``model`` with ReLU in place of ReLU6, and the share of ``images`` that keep their class.

    Raises:
        MismatchError: They are too few: the bound is part of what the network has learnt.
    """
    graph = Graph(_copy(model))
    for node in bounded(graph):
        node.op_type = "Relu"
        del node.input[1:], node.attribute[:]
    changed = graph.finish()
    before, after = OnnxModule(model), OnnxModule(changed)
    with torch.inference_mode():
        parts = [torch.from_numpy(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
        same = sum(int((before(part).argmax(1) == after(part).argmax(1)).sum()) for part in parts)
    agreement = same / len(images)
    if agreement < CHECK_AGREEMENT:
        raise MismatchError(
            f"without the bound of ReLU6 only {agreement:.1%} of {len(images)} images keep their class; use "
            "quant.equalize:relu6=keep"
        )
    return changed, agreement


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy
