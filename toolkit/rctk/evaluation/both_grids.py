"""Judges candidates as they are and after rounding to the 8-bit pixels that a camera delivers, in one run."""

from __future__ import annotations

from dataclasses import replace

from rctk.attacks.attack import Rows
from rctk.data.split import Split
from rctk.evaluation.judge import Flags
from rctk.evaluation.subjects import Seat, eight_bit
from rctk.threat import ThreatModel
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import OptionError


class RoundedSeat(Seat):
    """A subject that sees every image on the grid of 256 levels, inside the same budget.

    What breaks it breaks the same subject on float-valued images too, because a rounded image is one of them.

    Args:
        base: The same subject on images as they are.
        split: Images and labels; originals are put on the grid.
        threat: The budget, with float-valued images.
    """

    def __init__(self, base: Seat, split: Split, threat: ThreatModel) -> None:
        if threat.grid == "uint8":
            raise OptionError("a budget on the uint8 grid is rounded already; judge both from a float-valued one")
        self.base, self._threat = base, replace(threat, grid="uint8")
        images = self._threat.project(split.images, split.images)
        rounded = Split(name=split.name, images=images, labels=split.labels, indices=split.indices)
        super().__init__(replace(base.subject, name=eight_bit(base.name)), rounded, base.counted.batch_size)

    @property
    def covers(self) -> tuple[Seat, ...]:
        """This subject, and the same one on images as they are."""
        return self, self.base

    def replay(self, images: FloatNCHW, rows: Rows, split: Split) -> Flags:
        """Classify rounded candidates; see :meth:`rctk.evaluation.subjects.Seat.replay`."""
        rounded = self._threat.project(images, split.images[rows])
        broke = super().replay(rounded, rows, split)
        taken = broke & self.base.robust[rows]
        self.base.adversarial[rows[taken]] = rounded[taken]
        self.base.robust[rows[taken]] = False
        return broke
