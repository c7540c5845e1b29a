"""Network slimming: train BatchNorm scales towards zero, then remove the channels that let them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from rctk.compress.step import Context
from rctk.prune.depgraph import By, DepGraph
from rctk.prune.finetune import finetune
from rctk.train.objective import Objective, Replaying
from rctk.train.settings import TrainSettings
from rctk.train.step import read_objective
from rctk_kernels.errors import ModelError, OptionError


@dataclass(frozen=True, kw_only=True)
class SparseScales:
    """An objective with the L1 norm of all BatchNorm scales added; any training loop takes it.

    Attributes:
        inner: What is minimised besides.
        strength: Weight of the penalty.
    """

    inner: Objective
    strength: float

    @property
    def eps(self) -> float:
        """Budget of the inner objective."""
        return self.inner.eps

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the inner loss plus ``strength`` times the sum of absolute scales."""
        return self.inner(model, x, y, generator) + self.strength * sum(
            (scale.abs().sum() for scale in bn_scales(model)), start=x.new_zeros(())
        )


def bn_scales(module: nn.Module) -> list[nn.Parameter]:
    """Return the scales of all BatchNorms."""
    norms = (layer for layer in module.modules() if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)))
    return [layer.weight for layer in norms if layer.affine]


@dataclass(frozen=True, kw_only=True)
class Slimming:
    """Sparsity training, then removal of the channels with the least BatchNorm scales in the whole network.

    The shift of a removed channel is not folded into the next layer; fine-tune afterwards.

    Attributes:
        strength: Weight of the L1 norm of the scales; 1e-4 for VGG and 1e-5 for ResNets in the paper.
        sparse_epochs: Epochs with that penalty; 0 where training had it already.
        lr: Largest learning rate.
        objective: Training objective beside the penalty; ``;`` stands for ``,``.
        ratio: Share that goes.
        by: What it is a share of.
        round_to: See :class:`rctk.prune.depgraph.DepGraph`, as for the others.
        min_channels: The same.
        rounds: The same.
        epochs: The same.

    Reference:
        Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017.
        https://arxiv.org/abs/1708.06519
    """

    kind: ClassVar[Literal["module"]] = "module"
    role: ClassVar[str] = "channels"

    strength: float = 1e-4
    sparse_epochs: int = 5
    lr: float = 0.01
    objective: str = "standard"
    ratio: float = 0.5
    by: By = "channels"
    round_to: int = 8
    min_channels: int = 8
    rounds: int = 1
    epochs: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.strength < float("inf") or self.sparse_epochs < 0:
            raise OptionError(f"strength and sparse_epochs are 0 or more, got {self.strength} and {self.sparse_epochs}")
        objective = read_objective(self.objective)
        TrainSettings(objective=objective, lr=self.lr)
        if self.sparse_epochs and isinstance(objective, Replaying):
            raise OptionError("prune.slimming adds a penalty to the loss of a batch and cannot replay it; take pgd-at")
        self._pruner()

    def check_ready(self, module: nn.Module, context: Context) -> None:  # noqa: ARG002  # its layers are all it asks
        """Refuse a network without BatchNorm."""
        if not bn_scales(module):
            raise ModelError("prune.slimming needs BatchNorm, and this network has none; prune with prune.depgraph")

    def __call__(self, module: nn.Module, context: Context) -> nn.Module:
        """Return ``module``, smaller and in evaluation mode; it is changed in place."""
        self.check_ready(module, context)
        if self.sparse_epochs:
            sparse = SparseScales(inner=read_objective(self.objective), strength=self.strength)
            finetune(module, context, sparse, epochs=self.sparse_epochs, lr=self.lr, stage="sparsity training")
        return self._pruner()(module, context)

    def _pruner(self) -> DepGraph:
        return DepGraph(
            criterion="bn-scale",
            normalise="none",
            ratio=self.ratio,
            by=self.by,
            round_to=self.round_to,
            min_channels=self.min_channels,
            rounds=self.rounds,
            epochs=self.epochs,
            lr=self.lr if self.epochs else DepGraph.lr,
            objective=self.objective if self.epochs else DepGraph.objective,
        )
