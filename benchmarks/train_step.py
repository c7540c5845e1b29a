"""What a training step costs: float32 against bf16 with channels last, plain and adversarial.

    python benchmarks/train_step.py [--nets resnet20,resnet18] [--batch 32] [--rounds 4] [--attack-steps 0]

Each contender is one epoch of ``rctk train``'s own loop on random images, so augmentation, optimizer and Fabric are
included, validation is not. Contenders run in turns on as many threads as torch has; the least process-CPU time of a
step over all rounds is given, with the ratio to float32 in the usual memory format. Speed only: weights are random.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import torch

from rctk.data.split import Split
from rctk.models import build_architecture
from rctk.train import TrainSettings, build_objective
from rctk.train.hardware import make_fabric
from rctk.train.normalised import Normalised
from rctk.train.run import Run
from rctk_export.input_spec import InputSpec

SPEC = InputSpec(channels=3, height=32, width=32)
STEPS = 2
CONTENDERS = {
    "float32": {"precision": "32", "channels_last": False},
    "float32, channels last": {"precision": "32", "channels_last": True},
    "bf16": {"precision": "bf16", "channels_last": False},
    "bf16, channels last": {"precision": "bf16", "channels_last": True},
}


def main() -> None:
    """Print one table per network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", default="resnet20,resnet18")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--attack-steps", type=int, default=0)
    given = parser.parse_args()
    objective = f"pgd-at:steps={given.attack_steps}" if given.attack_steps else "standard"
    settings = TrainSettings(
        objective=build_objective(objective), batch_size=given.batch, epochs=10**6, augment="crop+flip", lr=1e-4
    )
    print(f"batch {given.batch}, {objective}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for net in given.nets.split(","):
        runs = [make_run(net, replace(settings, **how)) for how in CONTENDERS.values()]
        best = [float("inf")] * len(runs)
        for number in range(given.rounds + 1):  # the first round warms up
            for i, run in enumerate(runs):
                seconds = step_seconds(run, number + 1)
                best[i] = min(best[i], seconds) if number else best[i]
        for name, seconds in zip(CONTENDERS, best, strict=True):
            print(f"{net:12} {name:24} {1e3 * seconds:8.1f} ms a step  {best[0] / seconds:5.2f} x")


def make_run(net: str, settings: TrainSettings) -> Run:
    """Return a run on random images."""
    settings = settings.resolved()
    rng = np.random.default_rng(0)
    count = STEPS * settings.batch_size
    images = rng.random((count, *SPEC.shape), dtype=np.float32)
    split = Split(name="noise", images=images, labels=rng.integers(0, 10, count))
    module = build_architecture(net, classes=10, input=SPEC)
    return Run(make_fabric(settings), Normalised(module, SPEC), split, split, settings)


def step_seconds(run: Run, number: int) -> float:
    """Return the CPU time of a step, the mean over one epoch."""
    start = time.process_time()
    run.train_epoch(number, lambda _done: None)
    return (time.process_time() - start) / STEPS


if __name__ == "__main__":
    main()
