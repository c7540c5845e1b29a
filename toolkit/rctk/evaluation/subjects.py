"""The forms of one model that a suite compares, and what it knows about each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rctk.attacks.attack import Kind, Predict, Rows, TorchModule
from rctk.data.split import Split
from rctk.evaluation.counting import Counted, clean_classes
from rctk.evaluation.judge import Flags
from rctk_export.input_spec import FloatNCHW

EIGHT_BIT = " (8-bit)"


def eight_bit(name: str) -> str:
    """Return what a subject is called where it sees rounded images only.

    Example:
        >>> eight_bit("engine")
        'engine (8-bit)'
    """
    return name + EIGHT_BIT


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One form of a model: the float model, or an engine.

    Attributes:
        name: Such as ``float`` or ``engine``; unique in a suite.
        predict: What is judged: images in [0, 1] to logits.
        model: Differentiable form for gradient attacks: the float ``torch.nn.Module``, or the twin of an engine;
            ``None`` leaves only query attacks and candidates made for other subjects.
        model_name: What results call ``model``; by default ``float`` for a subject of that name and else ``twin``.
        judged: Whether candidates are tried on it. One that is not judged only serves gradient attacks to craft on, as
            an ensemble or a substitute does.
        notes: What a reader of its results must know about how it runs here.
    """

    name: str
    predict: Predict
    model: TorchModule | None = None
    model_name: str = ""
    judged: bool = True
    notes: tuple[str, ...] = ()

    def crafted_on(self, kind: Kind) -> str:
        """Name what candidates for this subject are made on."""
        if kind == "query":
            return self.name
        return self.model_name or ("float" if self.name == "float" else "twin")


class Seat:
    """One subject with what is known about it so far."""

    def __init__(self, subject: Subject, split: Split, batch_size: int) -> None:
        self.subject = subject
        self.name = subject.name
        self.counted = Counted(subject.predict, len(split), batch_size)
        self.clean: Flags = clean_classes(self.counted, split) == split.labels
        self.robust = self.clean.copy()
        self.adversarial = split.images.copy()

    @property
    def covers(self) -> tuple[Seat, ...]:
        """The seats that a candidate breaks together with this one."""
        return (self,)

    def replay(self, images: FloatNCHW, rows: Rows, split: Split) -> Flags:
        """Classify candidates for the images ``rows``, keep the latest for survivors, and say which broke, ``(n,)``."""
        broke = self.clean[rows] & (self.counted.classes(images, rows) != split.labels[rows])
        alive = self.robust[rows]
        self.adversarial[rows[alive]] = images[alive]
        self.robust[rows[broke]] = False
        return np.asarray(broke)

    def verify(self, split: Split) -> list[str]:
        """Classify every stored image once more; what comes out now is what counts."""
        again = self.clean & (self.counted.classes(self.adversarial, np.arange(len(split))) == split.labels)
        moved = int((again != self.robust).sum())
        self.robust = again
        if not moved:
            return []
        return [f"{self.name} changed its mind about {moved} stored images between two passes; the last one counts"]
