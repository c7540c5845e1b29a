"""Sparse structure selection: scales on blocks or channels are trained towards zero, and what reaches it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn
from torch.nn.utils.weight_norm import WeightNorm

from rctk.compress.step import Context
from rctk.models.selection import select_instead_of_pad
from rctk.prune.cost import cost
from rctk.prune.coupling import Coupling, find_couplings
from rctk.prune.depgraph import summary
from rctk.prune.layers import removable_blocks
from rctk.prune.proximal import accelerated
from rctk.prune.scales import Scale, fold, read_by_selection, scale_blocks, scale_channels
from rctk.prune.surgery import cut
from rctk.prune.trial import understood
from rctk.train.objective import Objective
from rctk.train.step import TrainingStep, read_objective, state_of
from rctk.train.to_the_end import train_to_the_end
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Sss(TrainingStep):
    """Train scales on residual blocks or channels towards zero, and remove what reaches it.

    A structure has a scale, 1 at first, on its output: the branch of a residual block around the identity; or a channel
    for all layers that read it, with those that go together with it in grouped convolutions. Weights are trained by the
    optimizer of the loop, whose momentum is not Nesterov's as in the paper; scales by
    :func:`rctk.prune.proximal.accelerated_step` at the same learning rate, without weight decay. What is at zero behind
    the last epoch goes, whichever epoch was best; the other scales are folded into weights, and the logits stay.
    Fine-tune afterwards.

    A step takes up to ``lr gamma / (1 - momentum)`` off a scale. The default of ``gamma`` is made for ten thousands of
    steps: a short run needs a larger one.

    Reference:
        Huang and Wang, "Data-Driven Sparse Structure Selection for Deep Neural Networks", ECCV 2018, eqs. 10 to 12,
        with gamma 0.01 for the blocks of ResNet-50. https://arxiv.org/abs/1707.01213
    """

    stage: ClassVar[str] = "sss"

    structures: Literal["blocks", "channels"] = "blocks"
    """What has scales."""
    gamma: float = 0.01
    """Weight of the sum of absolute scales in what is minimised."""
    objective: str = "train.standard"
    """What is minimised besides; see `rctk list objectives`."""
    epochs: int = 20
    """Passes over the training images."""
    lr: float = 0.05
    """Largest learning rate."""

    def __post_init__(self) -> None:
        super().__post_init__()
        read_objective(self.objective)
        if not 0 <= self.gamma < float("inf"):
            raise OptionError(f"prune.sss needs gamma of 0 or more, got {self.gamma}")
        if self.averaging != "none":
            raise OptionError(
                f"prune.sss looks for scales that are zero, and averages are not; leave out averaging={self.averaging}"
            )

    @property
    def role(self) -> str:
        """See :mod:`rctk.compress.order`."""
        return "channels" if self.structures == "channels" else ""

    def check_ready(self, module: nn.Module, context: Context) -> None:
        """Refuse a network whose blocks all change their input on the shortcut, or whose layers cannot be copied."""
        for name, layer in module.named_modules():
            if any(isinstance(hook, WeightNorm) for hook in layer._forward_pre_hooks.values()):  # noqa: SLF001
                raise OptionError(
                    f"{name}: torch.nn.utils.weight_norm makes weights that cannot be copied; build the network with "
                    "torch.nn.utils.parametrizations.weight_norm"
                )
        if self.structures == "blocks" and not removable_blocks(module, context.input):
            raise self._nothing()

    def _nothing(self) -> OptionError:
        other = "channels" if self.structures == "blocks" else "blocks"
        return OptionError(f"no {self.structures} of this network can have scales; try structures={other}")

    def objective_in(self, context: Context) -> Objective:  # noqa: ARG002  # only a teacher needs it
        """See :class:`rctk.train.step.TrainingStep`."""
        return read_objective(self.objective)

    def __call__(self, module: nn.Module, context: Context) -> nn.Module:
        """Return ``module``, smaller and in evaluation mode; it is changed in place."""
        module.eval()
        before = cost(module, context.input)
        couplings = _couplings(module, context) if self.structures == "channels" else []
        scales = scale_channels(module, couplings) if couplings else {}
        if self.structures == "blocks":
            scales = scale_blocks(module, context.input)
        if not scales:
            raise self._nothing()
        self._train(module, scales, context)
        fold(module)
        context.progress.note(self._outcome(scales))
        if self.structures == "blocks":
            _remove_blocks(module, scales, context)
        else:
            _remove_channels(module, scales, couplings, context)
        context.progress.note(summary(before, cost(module, context.input)))
        return module.eval()

    def _train(self, module: nn.Module, scales: Mapping[str, Scale], context: Context) -> None:
        with accelerated(list(scales.values()), gamma=self.gamma, momentum=self.momentum):
            train_to_the_end(
                module,
                context,
                self.settings(self.objective_in(context), seed=context.seed),
                stage=self.stage,
                resume=state_of(self, module, context, stage=self.stage),
                remark=lambda: f"  {_zeros(scales)} of {_count(scales)} {self.structures} at zero",
            )

    def _outcome(self, scales: Mapping[str, Scale]) -> str:
        """Say how many structures go, and what to do where none does."""
        gone, least = _zeros(scales), min(float(each.values.detach().min()) for each in scales.values())
        if gone == _count(scales) and self.structures == "channels":
            return (
                f"all {gone} channels reached zero, so that each layer keeps one and the network is lost; lower gamma "
                f"(now {self.gamma:g}) or epochs"
            )
        if gone:
            return f"{gone} of {_count(scales)} {self.structures} go: their scales are zero"
        return (
            f"no scale of {_count(scales)} {self.structures} became zero, the least is {least:.3g}, so nothing goes; "
            f"raise gamma (now {self.gamma:g}) or epochs"
        )


def _couplings(module: nn.Module, context: Context) -> list[Coupling]:
    """Return what can have scales, and say what cannot; zero-padded shortcuts become convolutions."""
    select_instead_of_pad(module, context.input.shape)
    found = find_couplings(module, context.input)
    passed, misread = understood(module, found.free, context.input)
    whole = found.whole | misread
    whole |= {each.name: "a zero-padded shortcut reads them" for each in passed if read_by_selection(module, each)}
    for name, reason in whole.items():
        context.progress.note(f"{name} keeps its channels: {reason}")
    return [each for each in passed if each.name not in whole]


def _remove_blocks(module: nn.Module, scales: Mapping[str, Scale], context: Context) -> None:
    for name, scale in scales.items():
        if not scale.values.any():
            module.set_submodule(name, nn.Identity())
            context.progress.note(f"{name} is gone; its shortcut stays")


def _remove_channels(
    module: nn.Module, scales: Mapping[str, Scale], couplings: list[Coupling], context: Context
) -> None:
    """Cut what no layer reads any more; of a coupling without any other the first channels stay."""
    removed = {}
    for coupling in couplings:
        gone = [s for s, value in enumerate(scales[coupling.name].values.tolist()) if value == 0]
        gone = gone[1:] if len(gone) == len(coupling.sets) else gone
        removed[coupling.name] = frozenset(channel for s in gone for channel in coupling.sets[s])
    cut(module, couplings, removed, context.input)


def _zeros(scales: Mapping[str, Scale]) -> int:
    return sum(int((each.values == 0).sum()) for each in scales.values())


def _count(scales: Mapping[str, Scale]) -> int:
    return sum(len(each.values) for each in scales.values())
