"""The substitute attack: imitate the engine, attack the imitation, replay."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rctk.attacks.attack import Kind, Predict
from rctk.data.split import Labels
from rctk.threat import ThreatModel
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import EngineUnavailableError, OptionError


@dataclass(frozen=True, kw_only=True)
class SubstituteAttack:
    """Train a network on the classes that the model under attack names, and attack that with Auto-PGD; linf and l2.

    The images under attack are the seeds, see :func:`rctk.substitute.train_substitute`, which also takes seeds of your
    own. Every query is booked to the image it descends from. Images that are judged in one go share one substitute, so
    results depend on the batch size, unlike those of other attacks. Needs torch, though no model with gradients.

    Attributes:
        rounds: Rounds of augmentation.
        reservoir: New images per round after the third.
        epochs: Passes over the training set per round.
        steps: Auto-PGD steps on the substitute.
        arch: Architecture of the substitute; ``""`` for a small network that fits the image size.

    Reference:
        Papernot et al., "Practical Black-Box Attacks against Machine Learning", ASIA CCS 2017.
        https://arxiv.org/abs/1602.02697
    """

    name: ClassVar[str] = "substitute"
    kind: ClassVar[Kind] = "query"
    packs: ClassVar[bool] = True
    imitates: ClassVar[bool] = True

    rounds: int = 6
    reservoir: int = 400
    epochs: int = 10
    steps: int = 100
    arch: str = ""

    def __post_init__(self) -> None:
        if self.rounds < 0 or min(self.reservoir, self.epochs, self.steps) < 1:
            raise OptionError(
                "substitute needs rounds of 0 or more, reservoir, epochs and steps of at least 1, got "
                f"{self.rounds}, {self.reservoir}, {self.epochs} and {self.steps}"
            )

    @property
    def passes(self) -> int:
        """Most queries that can be booked to one image: if all others were drawn from its descendants."""
        return (1 << min(self.rounds, 3)) + self.reservoir * max(self.rounds - 3, 0)

    def __call__(
        self, predict: Predict, x: FloatNCHW, y: Labels, threat: ThreatModel, rng: np.random.Generator
    ) -> FloatNCHW:
        """Return for every image the candidate with the highest loss on the substitute."""
        if not len(x):
            return x.copy()
        if importlib.util.find_spec("torch") is None:
            raise EngineUnavailableError(
                "the substitute attack trains a network with torch; install it with `pip install 'rctk[host]'`"
            )
        from rctk.substitute.craft import craft_on  # noqa: PLC0415  # torch, only where this attack runs
        from rctk.substitute.settings import SubstituteSettings  # noqa: PLC0415
        from rctk.substitute.train import train_substitute  # noqa: PLC0415

        settings = SubstituteSettings(rounds=self.rounds, reservoir=self.reservoir, epochs=self.epochs, arch=self.arch)
        substitute = train_substitute(predict, x, settings, seed=int(rng.integers(2**62)))
        return craft_on(substitute.model, x, y, threat, steps=self.steps, seed=int(rng.integers(2**62)))
