"""``quant.adaround``: learn for every weight whether it is rounded up or down."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from rctk.compress.step import Context, Draft
from rctk.quantize.layers import draw
from rctk.quantize.reconstruct import Target, Walk, ungrouped
from rctk.quantize.seqmse import best_scales, covering, grouped_scales, weight_error
from rctk_export.quantize.formats import Weight
from rctk_kernels.errors import OptionError

ZETA, GAMMA = 1.1, -0.1
WARM_UP = 0.2
FIRST_BETA, LAST_BETA = 20.0, 2.0
SHARES = np.linspace(0.3, 1, 36)


@dataclass(frozen=True, kw_only=True)
class AdaRound:
    """Adaptive rounding, layer by layer in network order.

    ``W_hat = s * clip(floor(W / s) + h(V), low, high)`` with ``h(V) = clip(sigmoid(V) * 1.2 - 0.1, 0, 1)`` minimises
    ``|a(W x) - a(W_hat x_hat)|^2 + weight * sum(1 - |2 h(V) - 1|^beta)``, where ``x_hat`` comes out of layers that are
    rounded already and ``a`` is the ReLU behind the layer. Scales are those of the draft (``quant.seqmse``), otherwise
    those with the least squared error of the weights. Outputs are measured in units of their root mean square, so that
    ``weight`` means the same in every layer. Fewer images and iterations than the paper's suffice because
    each iteration sees places drawn from all images. A weight that is zero, because it was pruned, stays zero.

    Attributes:
        iterations: Steps of Adam per layer.
        places: Outputs of the layer that one step sees.
        samples: Training images.
        learning_rate: Of Adam.
        weight: Of the regulariser that drives ``h`` to 0 or 1 while beta falls from 20 to 2, after 20 % of the steps.

    Reference:
        Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020, eq. 21-24.
        https://arxiv.org/abs/2004.10568
    """

    kind: ClassVar[Literal["graph"]] = "graph"
    role: ClassVar[str] = "codes"
    iterations: int = 1000
    places: int = 1024
    samples: int = 512
    learning_rate: float = 0.01
    weight: float = 0.01

    def __post_init__(self) -> None:
        if min(self.iterations, self.places, self.samples) < 1 or self.learning_rate <= 0 or self.weight < 0:
            raise OptionError("quant.adaround needs positive iterations, places, samples and learning_rate")

    def __call__(self, draft: Draft, context: Context) -> Draft:
        """See :class:`rctk.compress.step.GraphStep`."""
        walk = Walk(draft, draw(context.train, self.samples, context.seed), context.seed)
        generator = torch.Generator().manual_seed(context.seed)
        turned = total = 0
        for target in walk.targets(context.progress, "adaround"):
            layer, bits = target.layer, draft.formats.of_layer(target.layer.name)
            given = draft.formats.weights.get(layer.name)
            largest = covering(draft.formats, layer)
            scales = (
                best_scales(largest, SHARES, partial(weight_error, target, bits)) if given is None else given.scales
            )
            step = grouped_scales(torch.from_numpy(np.asarray(scales)), target)
            codes = self._learn(target, step, 2 ** (bits - 1) - 1, generator)
            turned += int((codes != _nearest(target.weight / step, 2 ** (bits - 1) - 1)).sum())
            total += codes.numel()
            decided = Weight(scales=scales, codes=ungrouped(codes, layer).to(torch.int8).numpy())
            draft = draft.with_formats(weights={**draft.formats.weights, layer.name: decided})
            walk.settle(layer, draft)
        share = turned / max(total, 1)
        return draft.noted(
            "quant.adaround", iterations=self.iterations, samples=len(walk.images), share_not_nearest=share
        )

    def _learn(self, target: Target, step: Tensor, limit: int, generator: torch.Generator) -> Tensor:
        """Return codes as floats, the shape of ``target.weight``."""
        floor = (target.weight / step).floor()
        rest = (target.weight / step - floor).clamp(0.01, 0.99)
        start = (rest - GAMMA) / (ZETA - GAMMA)
        v = torch.log(start / (1 - start)).requires_grad_()
        alive = target.weight != 0
        optimizer = torch.optim.Adam([v], lr=self.learning_rate)
        wanted = target.wanted.relu() if target.layer.rectified else target.wanted
        unit = self.places * float(wanted.square().mean()) or 1.0
        for i in range(self.iterations):
            rows = torch.randint(wanted.shape[1], (self.places,), generator=generator)
            up = soft(v) * alive
            rounded = (floor + up).clamp(-limit, limit) * step
            made = torch.baddbmm(target.bias, target.inputs[:, rows], rounded)
            miss = (made.relu() if target.layer.rectified else made) - wanted[:, rows]
            loss = miss.square().sum() / unit
            done = i / self.iterations
            if done >= WARM_UP:
                loss = loss + self.weight * regulariser(up, (done - WARM_UP) / (1 - WARM_UP))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return (floor + (soft(v.detach()) * alive >= 0.5)).clamp(-limit, limit)


def soft(v: Tensor) -> Tensor:
    """Return ``h(V)``, how far a weight is rounded up, in [0, 1]; a stretched sigmoid.

    Example:
        >>> soft(torch.tensor([-9.0, 0.0, 9.0]))
        tensor([0.0000, 0.5000, 1.0000])
    """
    return (torch.sigmoid(v) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def regulariser(up: Tensor, done: float) -> Tensor:
    """Return ``sum(1 - |2 h - 1|^beta)``; beta falls from 20 to 2 along a cosine while ``done`` goes from 0 to 1."""
    beta = LAST_BETA + (FIRST_BETA - LAST_BETA) * 0.5 * (1 + float(np.cos(np.pi * done)))
    return (1 - (2 * up - 1).abs().pow(beta)).sum()


def _nearest(weight: Tensor, limit: int) -> Tensor:
    return weight.round().clamp(-limit, limit)
