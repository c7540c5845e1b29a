"""SimBA: one basis vector at a time, forwards or backwards, from logits alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from rctk.attacks.attack import Kind, Predict
from rctk.attacks.case import Case, FloatCHW, cases, stacked
from rctk.attacks.checks import at_least, positive
from rctk.attacks.dct import low, wave
from rctk.attacks.lockstep import Search, lockstep, log_probability
from rctk.data.split import Labels
from rctk.threat import ThreatModel
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class SimBA:
    """Simple black-box attack, linf and l2.

    Walks along vectors of an orthonormal basis in random order and keeps a step when the probability of the true
    class falls. The paper stops where a number of steps fills the budget; here steps beyond it are projected back.

    Attributes:
        queries: Most queries per image, the original included.
        basis: ``dct`` walks along cosines, the lower frequencies first; ``pixel`` changes single pixels.
        frequencies: Share of the frequencies, in height and in width, that counts as low.
        step: Length of one step, in the norm of the budget, as a share of ``eps``.
        quantum: What the engine resolves in a pixel: no step is smaller than that in all pixels. 0 for a float model.

    Reference:
        Guo et al., "Simple Black-box Adversarial Attacks", ICML 2019, algorithm 1. https://arxiv.org/abs/1905.07121
    """

    name: ClassVar[str] = "simba"
    kind: ClassVar[Kind] = "query"

    queries: int = 1000
    basis: Literal["dct", "pixel"] = "dct"
    frequencies: float = 0.25
    step: float = 0.2
    quantum: float = 1 / 255

    def __post_init__(self) -> None:
        at_least(self, 1, "queries")
        if not 0 < self.frequencies <= 1:
            raise OptionError(f"simba:frequencies is a share in (0, 1], got {self.frequencies}")
        positive(self, "step")
        at_least(self, 0, "quantum")

    @property
    def passes(self) -> int:
        """Queries per image."""
        return self.queries

    def __call__(
        self, predict: Predict, x: FloatNCHW, y: Labels, threat: ThreatModel, rng: np.random.Generator
    ) -> FloatNCHW:
        """Return for every image the candidate least probable in its class; a broken image leaves at once."""
        found = cases(x, threat, rng, self.queries)
        lockstep(predict, y, found, self._search, log_probability)
        return stacked(found, x)

    def _search(self, case: Case) -> Search:
        at = case.x
        (smallest,) = yield at[None]
        for vector in self._vectors(case):
            for way in (vector, -vector):
                candidate = case.within(at + way)
                if np.array_equal(candidate, at):
                    continue  # the budget or [0, 1] leaves no room that way
                (score,) = yield candidate[None]
                if score < smallest:
                    at, smallest = candidate, score
                    case.offer(at, score)
                    break

    def _vectors(self, case: Case) -> Iterator[FloatCHW]:
        """Yield steps, every basis vector once per round, until a round changes nothing any more."""
        shape, norm = case.x.shape, case.threat.norm
        while True:
            before = case.rank
            for index in self._order(shape, case.rng):
                channel, down, across = np.unravel_index(index, shape)
                if self.basis == "dct":
                    vector = wave(shape, int(channel), int(down), int(across))
                else:
                    vector = np.zeros(shape, dtype=np.float32)
                    vector[channel, down, across] = 1
                largest = float(np.abs(vector).max())
                length = self.step * case.threat.eps / (largest if norm == "linf" else 1)
                yield vector * np.float32(max(length, self.quantum / largest))
            if case.rank == before:
                return

    def _order(self, shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Return all basis vectors, numbered as pixels, in random order; low frequencies come first."""
        order = rng.permutation(int(np.prod(shape)))
        if self.basis == "pixel":
            return order
        _, down, across = np.unravel_index(order, shape)
        first = (down < low(shape[1], self.frequencies)) & (across < low(shape[2], self.frequencies))
        return np.concatenate([order[first], order[~first]])
