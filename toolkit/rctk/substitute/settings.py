"""What the training of a substitute is told."""

from __future__ import annotations

from dataclasses import dataclass

from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class SubstituteSettings:
    """Settings of Papernot's procedure.

    Attributes:
        rounds: Times that the training set is augmented.
        step: Length ``lambda`` of an augmenting step in units of [0, 1] images.
        turn: Rounds after which the sign of the step changes.
        doubling: Rounds in which every image gets a new neighbour; later ones take ``reservoir`` new images.
        reservoir: New images per later round, drawn without replacement.
        epochs: Passes over the training set per round.
        batch_size: Images in a training step.
        lr: Learning rate of Adam.
        arch: Architecture as ``--arch`` takes it; ``""`` for a small network that fits the image size.
    """

    rounds: int = 6
    step: float = 0.1
    turn: int = 3
    doubling: int = 3
    reservoir: int = 400
    epochs: int = 10
    batch_size: int = 64
    lr: float = 1e-3
    arch: str = ""

    def __post_init__(self) -> None:
        if min(self.turn, self.reservoir, self.epochs, self.batch_size) < 1 or min(self.rounds, self.doubling) < 0:
            raise OptionError(
                "a substitute needs turn, reservoir, epochs and batch_size of at least 1, rounds and doubling of 0 or "
                f"more, got {self}"
            )
        if not 0 < self.step <= 1:
            raise OptionError(f"substitute: step is a length in (0, 1], got {self.step}")
        if not 0 < self.lr < float("inf"):
            raise OptionError(f"substitute: lr must be positive, got {self.lr}")

    def queries(self, seeds: int) -> int:
        """Return how many images the engine labels, given the number of seed images.

        Example:
            >>> SubstituteSettings().queries(100), SubstituteSettings(rounds=2).queries(100)
            (2000, 400)
        """
        total = seeds
        for number in range(self.rounds):
            total += total if number < self.doubling else min(self.reservoir, total)
        return total
