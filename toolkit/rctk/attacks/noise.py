"""Random noise: the baseline that every real attack must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rctk.attacks.attack import Kind, Predict, ask
from rctk.attacks.draws import base_seed, image_seeds, noise_l2, uniform
from rctk.data.split import Labels
from rctk.threat import ThreatModel
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Noise drawn in the budget, once per try; the candidate with the smallest margin is kept.

    In linf it is uniform in the ball, in l2 it has a uniform direction and the full length. If it breaks an image that
    a gradient attack left alone, that attack failed (Carlini et al., "On Evaluating Adversarial Robustness", 2019,
    https://arxiv.org/abs/1902.06705).

    Attributes:
        tries: Draws per image, each one query.
    """

    name: ClassVar[str] = "noise"
    kind: ClassVar[Kind] = "query"
    packs: ClassVar[bool] = True

    tries: int = 10

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise OptionError(f"noise:tries must be at least 1, got {self.tries}")

    @property
    def passes(self) -> int:
        """Queries per image."""
        return self.tries

    def __call__(
        self, predict: Predict, x: FloatNCHW, y: Labels, threat: ThreatModel, rng: np.random.Generator
    ) -> FloatNCHW:
        """Return for every image the try with the smallest margin; a broken image leaves at once."""
        seeds = image_seeds(x, base_seed(rng))
        out, smallest = x.copy(), np.full(len(x), np.inf, dtype=np.float32)
        rows = np.arange(len(x))
        for attempt in range(self.tries):
            if not len(rows):
                break
            candidate = threat.project(x[rows] + _perturbation(seeds[rows], x.shape[1:], threat, attempt), x[rows])
            answer = ask(predict, candidate, y[rows], rows)
            better = (answer.margin < smallest[rows]) | answer.broken
            out[rows[better]] = candidate[better]
            smallest[rows[better]] = answer.margin[better]
            rows = rows[~answer.broken]
        return out


def _perturbation(
    seeds: np.ndarray[tuple[int], np.dtype[np.uint64]], shape: tuple[int, ...], threat: ThreatModel, attempt: int
) -> FloatNCHW:
    eps = np.float32(threat.eps)
    if threat.norm == "linf":
        return eps * (2 * uniform(seeds, shape, stream=attempt) - 1)
    return eps * noise_l2(seeds, shape, stream=attempt)
