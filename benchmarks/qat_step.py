"""What a step of quantization-aware training costs: ours and PyTorch's fake quantizers against the float step.

    python benchmarks/qat_step.py [--nets resnet18:32,resnet20-b:depth=8:128] [--rounds 5]

A step is forward, backward and SGD on random images, in the memory format that training uses. float: the torch module.
ours: the graph with learned scales at every place that the cpu planner names, weights per channel, with its BatchNorm.
torch: the same graph and places, with PyTorch's operator of learned scales (``_LearnableFakeQuantize``) per tensor for
activations and per channel for weights. hooks off: the same graph while all quantizers let values through. Contenders
run in turns on as many threads as torch has; the least process-CPU time over all rounds is given, as a multiple of the
float step. Speed only: weights are random.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rctk.cli.console import table
from rctk.compress.step import Context, Draft
from rctk.data.split import Split
from rctk.models import build_architecture
from rctk.qat.lsq import Lsq, spread
from rctk.qat.place import Spot
from rctk.qat.quantizer import ActivationQuantizer, LearnedActivation, LearnedWeight, WeightQuantizer
from rctk.train.batches import lay_out
from rctk.train.normalised import Normalised
from rctk_export.capture import capture
from rctk_export.input_spec import InputSpec

SPEC = InputSpec(channels=3, height=32, width=32)


class TorchActivation(LearnedActivation):
    """PyTorch's learned scale of a tensor."""

    def __init__(self, start: float, low: int, high: int) -> None:
        super().__init__(start, low, high)
        self.zero = nn.Parameter(torch.zeros(1))

    def quantize(self, values: Tensor) -> Tensor:
        """Quantize with PyTorch's operator."""
        gain = 1 / float(np.sqrt(values[0].numel() * self.high))
        made: Tensor = torch._fake_quantize_learnable_per_tensor_affine(  # noqa: SLF001  # the module calls no other
            values, self.learned().reshape(1), self.zero, self.low, self.high, gain
        )
        return made


class TorchWeight(LearnedWeight):
    """PyTorch's learned scales of channels."""

    def __init__(self, start: Tensor, bits: int, count: int) -> None:
        super().__init__(start, bits, count)
        self.zero = nn.Parameter(torch.zeros_like(start))

    def quantize(self, values: Tensor) -> Tensor:
        """Quantize with PyTorch's operator."""
        made: Tensor = torch._fake_quantize_learnable_per_channel_affine(  # noqa: SLF001  # the same
            values, self.learned(), self.zero, 0, self.low, self.high, self.gain
        )
        return made


@dataclass(frozen=True, kw_only=True)
class TorchLsq(Lsq):
    """The same places with PyTorch's operators."""

    def weight_quantizer(self, weight: Tensor, bits: int, *, per_channel: bool) -> WeightQuantizer:
        """See :class:`rctk.qat.net.Method`."""
        ours = super().weight_quantizer(weight, bits, per_channel=per_channel)
        assert isinstance(ours, LearnedWeight)
        return TorchWeight(ours.learned.start, bits, weight[0].numel())

    def activation_quantizer(self, spot: Spot, reach: tuple[float, float]) -> ActivationQuantizer:
        """See :class:`rctk.qat.net.Method`."""
        return TorchActivation(spread(spot, reach), spot.low, spot.high)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", default="resnet18:32,resnet20-b:depth=8:128")
    parser.add_argument("--bits", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    rows = []
    for net in given.nets.split(","):
        name, _, batch = net.rpartition(":")
        steps = contenders(name, int(batch), given.bits)
        best = dict.fromkeys(steps, float("inf"))
        for number in range(given.rounds + 1):  # the first round warms up
            for contender, step in steps.items():
                start = time.process_time()
                step()
                if number:
                    best[contender] = min(best[contender], time.process_time() - start)
        rows += [
            [name, batch, contender, f"{1e3 * seconds:.1f}", f"{seconds / best['float']:.2f}"]
            for contender, seconds in best.items()
        ]
    title = f"{given.bits} bits, {torch.get_num_threads()} threads, torch {torch.__version__}"
    table(title, ("net", "batch", "step", "ms", "of float"), rows)


def contenders(name: str, batch: int, bits: int) -> dict[str, Callable[[], None]]:
    """Return one training step per contender."""
    rng = np.random.default_rng(0)
    images, labels = rng.random((batch, *SPEC.shape), dtype=np.float32), rng.integers(0, 10, batch)
    split = Split(name="noise", images=images, labels=labels)
    module = build_architecture(name, classes=10, input=SPEC)
    draft = Draft(model=capture(module.eval(), SPEC), input=SPEC)
    context = Context(train=split, validation=split, input=SPEC)
    settings = {"weights": bits, "activations": bits, "samples": batch}
    off = Lsq(**settings).net(draft, context)
    for quantizer in off.quantizers:
        quantizer.off = True
    nets: dict[str, nn.Module] = {
        "float": Normalised(module, SPEC),
        "hooks off": off,
        "ours": Lsq(**settings).net(draft, context),
        "torch": TorchLsq(**settings).net(draft, context),
    }
    x = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
    return {key: training_step(net, x, torch.from_numpy(labels)) for key, net in nets.items()}


def training_step(net: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    """Return a function that takes one step."""
    lay_out(net.train(), channels_last=True)
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=1e-4, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
