"""What quantizing one layer alone does: to classes, to robustness, and to the distribution over classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor
from torch.nn import functional as F

from rctk.attacks.pgd import PGD
from rctk.compress.step import Draft
from rctk.data.split import Split
from rctk.progress import Progress
from rctk.quantize.layers import weight_layers
from rctk.threat import ThreatModel
from rctk_export.graph import Graph
from rctk_export.input_spec import FloatNCHW
from rctk_export.onnx_module import OnnxModule
from rctk_export.quantize import PLANNERS
from rctk_export.quantize.plan import leader
from rctk_export.quantize.write import write_qdq
from rctk_kernels.errors import DataError

BATCH = 32
Correct = npt.NDArray[np.bool_]


class Judged(NamedTuple):
    """What a graph makes of the images of a :class:`Probe`."""

    clean: Correct
    """Right on the clean image, ``(N,)``."""
    robust: Correct
    """Right on every version of the image, ``(N,)``."""
    divergence: float
    """Mean Kullback-Leibler divergence from the float graph's class distribution, over all versions, in nats."""


@dataclass(frozen=True, kw_only=True)
class LayerEffect:
    """One layer in integers, all others in float.

    Attributes:
        layer: Its name.
        bits: Width of its weight.
        clean_drop: Float minus this accuracy on clean images, a share.
        robust_drop: The same on the adversarial images of :class:`Probe`.
        divergence: See :class:`Judged`; it ranks layers where no class changes.
    """

    layer: str
    bits: int
    clean_drop: float
    robust_drop: float
    divergence: float


class Probe:
    """Labelled images, clean and adversarial, on which quantized forms of one float graph are compared with it.

    Adversarial images are made once, by PGD-10 against the float graph and those added with :meth:`attack`, and
    replayed on every form. That is a comparison of one graph's variants, not a robustness evaluation.

    Args:
        model: The float graph.
        split: Images that calibration did not see.
        eps: Budget of PGD, linf.
        seed: Of its random start.
    """

    def __init__(self, model: onnx.ModelProto, split: Split, *, eps: float, seed: int) -> None:
        if not len(split):
            raise DataError(f"{split.name} holds no image to measure a drop on; give a split with more images")
        self.split, self.threat, self.seed = split, ThreatModel(eps=eps), seed
        self.versions: list[FloatNCHW] = [split.images]
        self._logits: list[Tensor] = []
        self._model = OnnxModule(model).requires_grad_(False)
        self._add(split.images)
        self._add(self._attacked(self._model))

    @property
    def reference(self) -> Judged:
        """What the float graph makes of the images."""
        return self._judged(self._logits)

    def attack(self, model: onnx.ModelProto) -> None:
        """Add adversarial images made against ``model``."""
        self._add(self._attacked(OnnxModule(model).requires_grad_(False)))

    def judge(self, model: onnx.ModelProto) -> Judged:
        """Classify every version of the images with ``model``, in the twin."""
        module = OnnxModule(model).requires_grad_(False)
        return self._judged([logits_of(module, images) for images in self.versions])

    def _add(self, images: FloatNCHW) -> None:
        if self._logits:
            self.versions.append(images)
        self._logits.append(logits_of(self._model, images))

    def _attacked(self, module: OnnxModule) -> FloatNCHW:
        generator, made = torch.Generator().manual_seed(self.seed), []
        for images, labels in self.split.batches(BATCH):
            x, y = torch.from_numpy(images), torch.from_numpy(labels)
            found = PGD(steps=10)(module, x, y, self.threat, generator).detach().numpy()
            made.append(self.threat.project(found, images))
        return np.concatenate(made).astype(np.float32)

    def _judged(self, logits: Sequence[Tensor]) -> Judged:
        right = [(found.argmax(dim=1).numpy() == self.split.labels) for found in logits]
        apart = [
            float(F.kl_div(found.log_softmax(1), exact.log_softmax(1), log_target=True, reduction="batchmean"))
            for found, exact in zip(logits, self._logits, strict=True)
        ]
        return Judged(right[0], np.logical_and.reduce(right), float(np.mean(apart)))


def logits_of(module: OnnxModule, images: FloatNCHW) -> Tensor:
    """Return the logits of all images, ``(N, K)``."""
    with torch.inference_mode():
        return torch.cat([module(torch.from_numpy(images[i : i + BATCH])) for i in range(0, len(images), BATCH)])


def written(draft: Draft, target: str) -> onnx.ModelProto:
    """Return the file of a draft whose ranges are known, if need be of the tensor that others were moved from."""
    graph = Graph(draft.model)
    plan = PLANNERS.build(target).plan(graph, draft.keep_float)
    producers, _ = graph.index()
    ranges = dict(draft.ranges)
    for tensor in plan.calibrated():
        source = leader(graph, producers, tensor)
        if tensor not in ranges and source in ranges:
            ranges[tensor] = ranges[source]
    return write_qdq(draft.model, plan, ranges, draft.formats)


def sensitivity(draft: Draft, target: str, probe: Probe, progress: Progress) -> list[LayerEffect]:
    """Quantize one layer after the other alone, and return the effects in the order of the network.

    Args:
        draft: With ranges of all tensors; its formats say how a layer is quantized.
        target: Whose planner places the pairs.
        probe: Images and the float graph's answers.
        progress: Shows the layers.
    """
    names = [layer.name for layer in weight_layers(draft)]
    exact, found = probe.reference, []
    with progress.stage("sensitivity", len(names)) as step:
        for name in names:
            others = tuple(other for other in names if other != name)
            alone = probe.judge(written(replace(draft, keep_float=(*draft.keep_float, *others)), target))
            clean, robust = drops(exact, alone)
            effect = LayerEffect(
                layer=name,
                bits=draft.formats.of_layer(name),
                clean_drop=clean,
                robust_drop=robust,
                divergence=alone.divergence,
            )
            found.append(effect)
            step(1)
    return found


def drops(exact: Judged, found: Judged) -> tuple[float, float]:
    """Return how much clean and robust accuracy ``found`` loses against ``exact``, shares."""
    clean = float(exact.clean.mean() - found.clean.mean())
    return clean, float(exact.robust.mean() - found.robust.mean())
