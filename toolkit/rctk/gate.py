"""The gate of ``rctk compare``: float against what ships, on the same samples, clean and under attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rctk.report.words import allowed_drop, percent
from rctk.statistics import Interval, Outcome, Paired, Verdict, non_inferiority, paired_difference, wilson
from rctk.statistics.non_inferiority import check_margin
from rctk.statistics.paired import Flags
from rctk_kernels.errors import DataError

EXIT_CODES: dict[Outcome, Literal[0, 1, 3]] = {"does not hold": 1, "not enough samples": 3, "holds": 0}
"""Exit code of every outcome, the worst outcome first."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One kind of accuracy of float and engine on the same samples.

    Attributes:
        name: ``clean`` or ``robust``.
        float_accuracy: Share of samples.
        float_interval: Wilson's 95 % interval.
        engine_accuracy: Share of samples.
        engine_interval: Wilson's 95 % interval.
        paired: Discordant counts, difference with Tango's interval, McNemar's exact p.
        verdict: Whether the drop stays below the margin.
        note: What a reader must know beside the verdict, else ``""``.
    """

    name: Literal["clean", "robust"]
    float_accuracy: float
    float_interval: Interval
    engine_accuracy: float
    engine_interval: Interval
    paired: Paired
    verdict: Verdict
    note: str

    def as_dict(self) -> dict[str, Any]:
        """Return flat JSON values; shares in [0, 1], differences are engine minus float."""
        return {
            "float_accuracy": self.float_accuracy,
            "float_low": self.float_interval.low,
            "float_high": self.float_interval.high,
            "engine_accuracy": self.engine_accuracy,
            "engine_low": self.engine_interval.low,
            "engine_high": self.engine_interval.high,
            "both": self.paired.both,
            "float_only": self.paired.float_only,
            "engine_only": self.paired.engine_only,
            "difference": self.paired.difference,
            "difference_low": self.paired.low,
            "difference_high": self.paired.high,
            "mcnemar_p": self.paired.p_value,
            "outcome": self.verdict.outcome,
            "lower_bound": self.verdict.lower,
            "upper_bound": self.verdict.upper,
            "samples_to_decide": self.verdict.samples_to_decide,
            "samples_if_equal": self.verdict.samples_if_equal,
            "note": self.note,
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The clean gate and the robust gate; both must hold.

    A pass needs no correction for two gates: each is tested at 5 %, so an engine that truly exceeds the margin in
    either passes both with chance 5 % at most (intersection-union test; Berger, "Multiparameter hypothesis testing and
    acceptance sampling", Technometrics 24, 1982). A failure is stated per gate, each at 5 %.
    """

    clean: Gate
    robust: Gate
    max_drop: float
    disbelief: str = ""
    """Why the robust accuracies are not to be believed, where the masking audit found so; then nothing holds."""

    @property
    def gates(self) -> tuple[Gate, Gate]:
        """The two gates in the order in which they are printed."""
        return self.clean, self.robust

    @property
    def samples(self) -> int:
        """Samples behind every number."""
        return self.clean.paired.n

    @property
    def outcome(self) -> Outcome:
        """The worse of the two outcomes; ``does not hold`` where the robust accuracies are not to be believed."""
        if self.disbelief:
            return "does not hold"
        return next(outcome for outcome in EXIT_CODES if outcome in {gate.verdict.outcome for gate in self.gates})

    @property
    def exit_code(self) -> Literal[0, 1, 3]:
        """0 where both gates hold, 1 where one does not, 3 where the data cannot decide."""
        return EXIT_CODES[self.outcome]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; the form that records and ``--json`` hold."""
        return {
            "samples": self.samples,
            "max_drop": self.max_drop,
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "disbelief": self.disbelief,
            "clean": self.clean.as_dict(),
            "robust": self.robust.as_dict(),
        }


def compare_paired(
    float_clean: Flags, float_robust: Flags, engine_clean: Flags, engine_robust: Flags, *, max_drop: float
) -> Comparison:
    """Judge clean and robust accuracy of an engine against its float model.

    Args:
        float_clean: ``(N,)`` bool; the float model is right on the clean image.
        float_robust: ``(N,)`` bool; and no candidate broke it.
        engine_clean: ``(N,)`` bool; the same samples in the same order through the engine.
        engine_robust: ``(N,)`` bool; after the same candidates.
        max_drop: Largest allowed drop of either accuracy, a share, chosen before the run.
    """
    for name, clean, robust in (("float", float_clean, float_robust), ("engine", engine_clean, engine_robust)):
        if clean.shape == robust.shape and np.any(robust & ~clean):
            raise DataError(
                f"{np.count_nonzero(robust & ~clean)} samples count as robust for {name} that it misclassifies when "
                "clean; robust means right before and after the attack"
            )
    check_margin(max_drop)
    right, n = int(np.count_nonzero(float_clean)), len(float_clean)
    if n and right <= max_drop * n:
        raise DataError(
            f"the float model gets {right} of {n} clean images right, so no engine could lose more than the allowed "
            f"{allowed_drop(max_drop)}; check labels, the order of the classes and normalisation, for "
            "example with `rctk inspect`"
        )
    return Comparison(
        clean=_gate("clean", float_clean, engine_clean, max_drop),
        robust=_gate("robust", float_robust, engine_robust, max_drop),
        max_drop=max_drop,
    )


def _gate(name: Literal["clean", "robust"], float_ok: Flags, engine_ok: Flags, max_drop: float) -> Gate:
    paired = paired_difference(float_ok, engine_ok)
    float_right, engine_right = paired.both + paired.float_only, paired.both + paired.engine_only
    vacuous = float_right <= max_drop * paired.n
    return Gate(
        name=name,
        float_accuracy=float_right / paired.n,
        float_interval=wilson(float_right, paired.n),
        engine_accuracy=engine_right / paired.n,
        engine_interval=wilson(engine_right, paired.n),
        paired=paired,
        verdict=non_inferiority(paired.float_only, paired.engine_only, paired.n, max_drop),
        note=_vacuous_note(name, float_right / paired.n, max_drop) if vacuous else "",
    )


def _vacuous_note(name: str, float_accuracy: float, max_drop: float) -> str:
    """Word the note for a gate that no engine could fail."""
    return (
        f"note: float {name} accuracy is {percent(float_accuracy)}, not above the allowed drop of "
        f"{allowed_drop(max_drop)}: no engine could fail the {name} gate"
    )
