"""Crafts with a query attack, on any engine."""

from __future__ import annotations

from typing import cast

import numpy as np

from rctk.attacks.attack import Attack, Predict, QueryAttack, Rows, TorchModule, require_norm
from rctk.data.split import Labels
from rctk.evaluation.counting import Counted
from rctk.evaluation.crafting import Cost, Proposal, accept, attack_seed
from rctk.evaluation.on_grid import OnGrid
from rctk.evaluation.scores import reads_scores
from rctk.threat import ThreatModel
from rctk_export.input_spec import FloatNCHW


class BlackBox:
    """Runs a query attack; see :class:`rctk.evaluation.crafting.Crafter`."""

    def __init__(
        self, attack: Attack, threat: ThreatModel, seed: int, counted: Counted, model: TorchModule | None
    ) -> None:
        del model  # logits are enough
        require_norm(attack, threat)
        self._attack = cast("QueryAttack", attack)
        self._threat = threat
        self._state = attack_seed(seed, attack)
        self._counted = counted

    def craft(self, x: FloatNCHW, y: Labels, rows: Rows, *, push: bool = False) -> Proposal:
        """Attack ``x`` through the counted predict; its own answers decide, so there is nothing to push.

        A score attack reads the evaluation variant where there is one. An image that broke there and not on the engine
        is attacked once more, on the engine.
        """
        del push
        stopped = np.zeros(len(x), dtype=np.bool_)
        if self._counted.scores is None or not reads_scores(self._attack):
            images, replaced = self._search(x, y, rows)
            return Proposal(images=images, stopped=stopped, replaced=replaced)
        with self._counted.reading_scores():
            images, replaced = self._search(x, y, rows)
            fooled = self._counted.classes(images, rows) != y
        left = np.flatnonzero(fooled)
        left = left[self._counted.classes(images[left], rows[left]) == y[left]]
        if len(left):
            images[left], more = self._search(x[left], y[left], rows[left])
            replaced += more
        return Proposal(images=images, stopped=stopped, replaced=replaced)

    def _search(self, x: FloatNCHW, y: Labels, rows: Rows) -> tuple[FloatNCHW, int]:
        rng = np.random.default_rng(self._state)
        predict: Predict = self._counted.about(rows)
        if self._threat.grid == "uint8":
            predict = OnGrid(predict, x, self._threat)
        raw = self._attack(predict, x, y, self._threat, rng)
        return accept(np.asarray(raw, dtype=np.float32), x, self._threat)

    @property
    def cost(self) -> Cost:
        """Nothing: queries are counted at the predict."""
        return Cost()
