"""Runs one attack and hands back finite images inside the budget: all that the judge takes from an attack."""

from __future__ import annotations

import zlib
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from rctk.attacks.attack import Attack, Rows, TorchModule
from rctk.data.split import Labels
from rctk.evaluation.counting import Counted
from rctk.threat import ThreatModel
from rctk_export.input_spec import FloatNCHW
from rctk_export.registry import Family
from rctk_kernels.errors import AttackError, OptionError


class Proposal(NamedTuple):
    """What an attack proposes for a group of images.

    Attributes:
        images: ``(n, C, H, W)`` inside the budget.
        stopped: ``(n,)``; the attack left the image because its own model, maybe not the one under test, was fooled.
        replaced: Candidates with NaN or infinite pixels; the original stands in for them.
    """

    images: FloatNCHW
    stopped: npt.NDArray[np.bool_]
    replaced: int


class Cost(NamedTuple):
    """What an attack has cost so far, in images."""

    forward: int = 0
    backward: int = 0
    zero_gradients: int = 0


class Crafter(Protocol):
    """One attack against one subject."""

    def __init__(
        self, attack: Attack, threat: ThreatModel, seed: int, counted: Counted, model: TorchModule | None
    ) -> None: ...

    def craft(self, x: FloatNCHW, y: Labels, rows: Rows, *, push: bool = False) -> Proposal:
        """Attack images ``x`` ``(n, C, H, W)``, which are the images ``rows`` of the split.

        ``push`` asks for candidates that go on beyond the first success.
        """
        ...

    @property
    def cost(self) -> Cost:
        """Passes through the differentiable model."""
        ...


GROUP_BYTES = 2**26
"""Most memory of the images that an attack gets at once; its own state is about ten times as large."""

CRAFTERS: Family[Crafter] = Family(
    "kind of attack",
    {"gradient": "rctk.evaluation.whitebox:WhiteBox", "query": "rctk.evaluation.blackbox:BlackBox"},
)
"""Imported only when needed: query attacks are judged without torch."""


def accept(raw: FloatNCHW, x: FloatNCHW, threat: ThreatModel) -> tuple[FloatNCHW, int]:
    """Return candidates projected into the budget, and how many were replaced by their originals as not finite."""
    if raw.shape != x.shape:
        raise AttackError(f"the attack returned images {raw.shape} for images {x.shape}")
    finite: npt.NDArray[np.bool_] = np.asarray(np.isfinite(raw).all(axis=(1, 2, 3)))
    return threat.project(np.where(finite[:, None, None, None], raw, x), x), int((~finite).sum())


def attack_seed(seed: int, attack: Attack) -> int:
    """Return the state, 0 .. 2^63 - 1, that all batches of one evaluation of ``attack`` start from."""
    if seed < 0:
        raise OptionError(f"seed must not be negative, got {seed}")
    sequence = np.random.SeedSequence([seed, zlib.crc32(attack.name.encode())])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def groups(rows: Rows, size: int) -> list[Rows]:
    """Cut ``rows`` into pieces of at most ``size``."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def group_size(attack: Attack, batch_size: int, image_bytes: int) -> int:
    """Return how many images an attack gets at once: a batch, or several where it packs and memory allows.

    What is left of several batches fills fewer of them, so the model keeps working on full batches.
    """
    if not getattr(attack, "packs", False):
        return batch_size
    return max(batch_size, min(8 * batch_size, GROUP_BYTES // image_bytes))
