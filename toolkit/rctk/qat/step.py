"""What all steps of quantization-aware training share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from rctk.compress.step import Context, Draft
from rctk.progress import Progress
from rctk.qat.distilled import Distilled, graph_teacher
from rctk.qat.net import QatNet
from rctk.qat.place import Edge, Spot, place
from rctk.qat.quantizer import ActivationQuantizer, WeightQuantizer
from rctk.quantize.layers import draw, weight_layers
from rctk.train.loop import train
from rctk.train.objective import Objective, Replaying
from rctk.train.settings import Epoch, History, LoopSettings, TrainSettings, need
from rctk.train.step import read_objective, state_of
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Qat(LoopSettings, ABC):
    """Train the graph with fake quantizers where the target's planner puts Q/DQ pairs; what trains is what ships.

    Only tensors that layers alone read have ``activations`` bits; residual sums and what other operators read have 8,
    as has everything around the first and the last layer unless ``edge_layers`` says otherwise. The epoch that is best
    on the validation images is kept, judged with the arithmetic of the file. All settings of the training loop can be
    given: ``quant.lsq:weights=4,activations=4,epochs=2``; those of the objective follow ``;``.

    Limits: grids fit the ``target`` they were trained for; one of 8 bits without a sign fits ``cpu`` only. A weight
    that is zero stays a zero code only with quantizers that have one, so not with 1 bit or ``quant.dorefa``.
    """

    kind: ClassVar[Literal["graph"]] = "graph"
    role: ClassVar[str] = "training"
    name: ClassVar[str]
    widths: ClassVar[range] = range(1, 9)

    weights: int = 8
    """Bits of weight codes, 1 to 8."""
    activations: int = 8
    """Bits of activation codes, 1 to 8."""
    edge_layers: Edge = "int8"
    """First and last layer: 8 bits (int8), the same widths as the rest (same), or float."""
    bn: Literal["live", "folded"] = "live"
    """live puts a BatchNorm behind every layer but the last and folds it exactly afterwards; folded trains biases."""
    freeze: float = 0.66
    """Share of the epochs after which BatchNorm statistics rest."""
    target: Literal["cpu", "tensorrt"] = "cpu"
    """Whose placement is trained; export the same with --target."""
    objective: str = "train.standard"
    """What is minimised; see `rctk list objectives`."""
    distill: float = 0.0
    """Weight of the float graph's answers in the loss; the objective has the rest."""
    temperature: float = 4.0
    """How much the answers are softened."""
    samples: int = 256
    """Training images that set the first ranges and statistics."""
    epochs: int = 2
    """Passes over the training images."""
    lr: float = 0.004
    """Largest learning rate."""
    schedule: Literal["cosine", "cyclic", "multistep", "constant"] = "cosine"
    """How the learning rate moves."""
    weight_decay: float = 1e-4
    """Weight decay."""
    precision: Literal["auto", "32", "bf16", "fp16"] = "32"
    """Of convolutions and matrix products; 32 keeps the sums of codes exact."""
    keep_zeros: bool = True
    """Weights that are zero stay zero."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_width("weights", self.weights, self.widths)
        self._check_width("activations", self.activations, range(1, 9))
        need(
            self.name,
            ("0 <= distill <= 1", self.distill, 0 <= self.distill <= 1),
            ("temperature > 0 and finite", self.temperature, 0 < self.temperature < math.inf),
            ("0 < freeze <= 1", self.freeze, 0 < self.freeze <= 1),
            ("samples >= 2", self.samples, self.samples >= 2),
        )
        objective = read_objective(self.objective)  # refuses unknown ones before anything runs
        if self.distill and isinstance(objective, Replaying):
            raise OptionError(f"{self.name}: an objective that replays batches cannot be distilled; set distill=0")

    def _check_width(self, what: str, bits: int, allowed: range) -> None:
        if bits not in allowed:
            first, last = allowed[0], allowed[-1]
            widths = f"{first} to {last} bits" if last > first else f"{first} bit{'s' if first > 1 else ''}"
            raise OptionError(f"{self.name} has {widths} for {what}, got {bits}")

    @abstractmethod
    def weight_quantizer(self, weight: Tensor, bits: int, *, per_channel: bool) -> WeightQuantizer:
        """See :class:`rctk.qat.net.Method`."""

    @abstractmethod
    def activation_quantizer(self, spot: Spot, reach: tuple[float, float]) -> ActivationQuantizer:
        """See :class:`rctk.qat.net.Method`."""

    def net(self, draft: Draft, context: Context) -> QatNet:
        """Return the net before training."""
        places = place(
            draft,
            weights=self.weights,
            activations=self.activations,
            edge_layers=self.edge_layers,
            target=self.target,
        )
        return QatNet(places, self, draw(context.train, self.samples, context.seed), live=self.bn == "live")

    def __call__(self, draft: Draft, context: Context) -> Draft:
        """See :class:`rctk.compress.step.GraphStep`."""
        net = self.net(draft, context)
        if self.keep_zeros:
            self._tell_lost_zeros(draft, net, context.progress)
        history = self.train(net, draft, context)
        return net.draft().noted(
            self.name,
            weights=self.weights,
            activations=self.activations,
            edge_layers=self.edge_layers,
            bn=self.bn,
            target=self.target,
            objective=self.objective,
            distill=self.distill,
            images=len(context.train),
            epochs=len(history.epochs),
            best_epoch=history.best.number,
            validation_accuracy=history.best.clean_accuracy,
        )

    def _tell_lost_zeros(self, draft: Draft, net: QatNet, progress: Progress) -> None:
        """Say where zero weights, such as those of a 2:4 pattern, get other codes, before it is trained for hours."""
        codes = {name: weight.codes for name, weight in net.draft().formats.weights.items() if weight.codes is not None}
        layers = [layer for layer in weight_layers(draft) if layer.name in codes]
        zeros = sum(int((layer.weight == 0).sum()) for layer in layers)
        lost = sum(
            int(((layer.weight == 0) & (codes[layer.name][tuple(map(slice, layer.weight.shape))] != 0)).sum())
            for layer in layers
        )
        if 10 * lost > zeros:
            progress.note(
                f"{self.name} with {self.weights} bits has no code for zero: {lost} of {zeros} zero weights, such as "
                "those of a 2:4 pattern, get others; quant.lsq keeps them"
            )

    def train(self, net: QatNet, draft: Draft, context: Context) -> History:
        """Train ``net`` in place, as :func:`rctk.train.train` does; ``draft`` is the float graph it was made from."""
        spec = context.input
        plain = InputSpec(channels=spec.channels, height=spec.height, width=spec.width)  # the graph normalises

        def say(epoch: Epoch, _module: nn.Module) -> None:
            context.progress.note(f"{self.name} epoch {epoch.number}/{self.epochs}  {epoch}")
            net.after_epoch(epoch.number / self.epochs, freeze=self.freeze)

        return train(
            net,
            context.train,
            context.validation,
            TrainSettings.of(self, self._objective(draft), seed=context.seed),
            input=plain,
            progress=say,
            bars=context.progress,
            resume=state_of(self, net, context, stage="qat"),
        )

    def _objective(self, draft: Draft) -> Objective:
        objective = read_objective(self.objective)
        if not self.distill:
            return objective
        return Distilled(
            objective=objective,
            teacher=graph_teacher(draft),
            share=self.distill,
            temperature=self.temperature,
        )
