"""Dynamic network surgery: weights are masked while the network trains, and come back where that was a mistake."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from rctk.compress.step import Context
from rctk.prune.magnitude import densities
from rctk.prune.unstructured import Layer, largest, layers_to_prune, least_kept, tell_left_out
from rctk.train.batches import seed_of, steps_of
from rctk.train.objective import Objective
from rctk.train.step import TrainingStep, read_objective, state_of, train_stage
from rctk_kernels.errors import OptionError

LOW, HIGH = 0.9, 1.1
"""Below this share of the threshold a weight is masked, above that it is not, between them it stays as it is."""
SURGERY = 4
"""What the generator of this method is for, beside those of the training loop."""


class Mask(nn.Module):
    """Masks weights in the forward pass, while the gradient reaches all of them.

    Args:
        weight: ``(O, ...)``; its mean and standard deviation set the threshold, once and for all.
        deviations: How many standard deviations of ``|w|`` the threshold is above their mean.
        least: How many weights, the largest, are never masked.
    """

    keep: Tensor
    step: Tensor

    def __init__(self, weight: Tensor, *, deviations: float, least: int) -> None:
        super().__init__()
        size = weight.detach().abs()
        threshold = max(float(size.mean() + deviations * size.std(correction=0)), 0.0)
        self.low, self.high, self.least = LOW * threshold, HIGH * threshold, least
        self.register_buffer("keep", torch.ones_like(weight, dtype=torch.bool))
        self.register_buffer("step", torch.zeros((), dtype=torch.long))  # steps of the optimizer so far

    def forward(self, weight: Tensor) -> Tensor:
        """Return ``weight`` with zeros where it is masked; its gradient is that of the result, everywhere."""
        return weight + (weight * self.keep - weight).detach()

    def refresh(self, weight: Tensor) -> None:
        """Mask what is too small by now, and open what has grown."""
        size = weight.detach().abs()
        keep = (size > self.high) | (self.keep & (size > self.low))
        self.keep.copy_(keep if int(keep.sum()) >= self.least else keep | largest(size, self.least))


@dataclass(frozen=True, kw_only=True)
class Dns(TrainingStep):
    """Mask small weights while the network trains, and open them again when they grow; the best epoch is kept.

    A weight is masked at ``|w| <= 0.9 t``, opened at ``|w| > 1.1 t`` and left as it is between; ``t`` is the mean of
    ``|w|`` in its layer plus ``deviations`` standard deviations, at least 0, as they were at the start. Masks are
    refreshed before the first step and behind step ``i`` with probability ``(1 + slowing i)^-power``, all layers at
    once, as long as ``i < stop``. The loss is that of the masked network, and its gradient moves masked weights too.
    All settings of the training loop can be given; with ``keep_zeros=false`` zeros of an earlier step may open as well.

    How many weights go is not asked but comes out. Beyond the paper, a layer keeps its largest 1 % at least, or one
    weight for each output channel where these are more; biases are left alone. Shapes stay: no runtime here gets faster
    from such zeros, files compress better.

    Reference:
        Guo et al., "Dynamic Network Surgery for Efficient DNNs", NeurIPS 2016, equations 2 and 3.
        https://arxiv.org/abs/1608.04493. The threshold, and the probability with its settings, are those of its code:
        https://github.com/yiwenguo/Dynamic-Network-Surgery, whose example takes 4 deviations, slowing 1e-4 and stop
        14000.
    """

    stage: ClassVar[str] = "surgery"

    deviations: float = 1.0
    """Standard deviations of the threshold above the mean; may be negative."""
    slowing: float = 1e-3
    """How fast refreshing becomes rare."""
    power: float = 1.0
    """The same."""
    stop: int | None = None
    """Step of the optimizer after which masks rest; by default after three quarters of all."""
    skip: str = ""
    """Layers that stay dense, joined by `+`."""
    objective: str = "train.standard"
    """What is minimised; see `rctk list objectives`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        read_objective(self.objective)
        if not math.isfinite(self.deviations):
            raise OptionError(f"prune.dns needs a finite number of deviations, got {self.deviations}")
        for name, value in (("slowing", self.slowing), ("power", self.power), ("stop", self.stop or 0)):
            if not 0 <= value < math.inf:
                raise OptionError(f"prune.dns needs {name} of 0 or more, got {value:g}")

    def objective_in(self, context: Context) -> Objective:  # noqa: ARG002  # only a teacher needs it
        """See :class:`rctk.train.step.TrainingStep`."""
        return read_objective(self.objective)

    def check_ready(self, module: nn.Module, context: Context) -> None:  # noqa: ARG002  # its layers are all it asks
        """Refuse layers to skip that the network does not have."""
        layers_to_prune(module, self.skip)

    def __call__(self, module: nn.Module, context: Context) -> nn.Module:
        """Return ``module`` with zeros, trained and in evaluation mode; it is changed in place."""
        tell_left_out(module, context.progress)
        masked = copy.deepcopy(module)
        layers = layers_to_prune(masked, self.skip)
        weights = {name: layer.weight for name, layer in layers.items()}
        masks = {name: self._mask(layer) for name, layer in layers.items()}
        objective = self.objective_in(context)
        steps = steps_of(context.train, self.batch_size) * self.epochs * getattr(objective, "replays", 1)
        resume = state_of(self, masked, context, stage=self.stage)
        with refreshed(masks, weights, lambda step: self.chance(step, steps), seed=context.seed):
            settings = self.settings(objective, seed=context.seed)
            train_stage(masked, context, settings, stage=self.stage, resume=resume)
        plain = masked.state_dict() | {f"{name}.weight": layer.weight.detach() for name, layer in layers.items()}
        module.load_state_dict({key: plain[key] for key in module.state_dict()})
        context.progress.note(densities(layers_to_prune(module, self.skip)))
        return module.eval()

    def chance(self, step: int, steps: int) -> float:
        """Return the probability that masks are refreshed behind ``step`` of ``steps``.

        Example:
            >>> [Dns(slowing=1.0, stop=3).chance(step, 10) for step in (0, 1, 3)]
            [1.0, 0.5, 0.0]
        """
        stop = 0.75 * steps if self.stop is None else self.stop
        return (1 + self.slowing * step) ** -self.power if step < stop else 0.0

    def _mask(self, layer: Layer) -> Mask:
        """Give a layer its mask."""
        weight = layer.weight
        mask = Mask(weight, deviations=self.deviations, least=least_kept(weight, None)).to(weight.device)
        mask.refresh(weight)
        register_parametrization(layer, "weight", mask)
        return mask


@contextmanager
def refreshed(
    masks: Mapping[str, Mask], weights: Mapping[str, Tensor], chance: Callable[[int], float], *, seed: int
) -> Iterator[None]:
    """Within the block, refresh masks behind the steps of the optimizer that holds their weights.

    Args:
        masks: By the names of the layers.
        weights: What they mask, as the optimizer holds it.
        chance: Probability behind a step, counted from 1.
        seed: Decides when, the same on every device and in a run that goes on.
    """
    first = next(iter(masks))

    def refresh(optimizer: Optimizer, *_: Any) -> None:
        if all(each is not weights[first] for group in optimizer.param_groups for each in group["params"]):
            return
        for mask in masks.values():
            mask.step += 1
        step = int(masks[first].step)
        draw = torch.rand((), generator=torch.Generator().manual_seed(seed_of(seed, SURGERY, step)))
        if float(draw) < chance(step):
            for name, mask in masks.items():
                mask.refresh(weights[name])

    handle = register_optimizer_step_post_hook(refresh)
    try:
        yield
    finally:
        handle.remove()
