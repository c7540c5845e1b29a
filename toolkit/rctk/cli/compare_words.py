"""What `rctk compare` records and prints about a finished run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from rctk.cli.attack_records import WORST_COLUMNS, worst_rows
from rctk.cli.console import table
from rctk.cli.protocol_runs import show_protocol
from rctk.evaluation.first_look import FirstLook
from rctk.evaluation.protocol_result import ProtocolResult
from rctk.evaluation.subjects import eight_bit
from rctk.evaluation.suite import SuiteResult
from rctk.gate import Comparison, compare_paired
from rctk.gate_outputs import text_lines
from rctk.gate_together import COLUMNS, Together, together_rows, together_values
from rctk.statistics.planning import Spread


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One finished comparison.

    Attributes:
        result: Float and engine under the same attacks.
        max_drop: Largest allowed drop, a share.
        rounded: Whether the gate is on images rounded to 8-bit pixels.
        look: What both answered before.
        spreads: Of repeated runs, by subject; empty for one run.
        single: Gates of single attacks; empty where they ran together.
        found: The protocol, where one was run.
    """

    result: SuiteResult
    max_drop: float
    rounded: bool
    look: FirstLook
    spreads: dict[str, Spread]
    single: dict[str, Together]
    found: ProtocolResult | None

    def gates(self) -> Comparison:
        """Return the verdicts."""
        disbelief = "" if self.found is None else self.found.disbelief()
        return replace(_gates(self.result, self.max_drop, rounded=self.rounded), disbelief=disbelief)

    def values(self) -> dict[str, Any]:
        """Return JSON values for the record."""
        values = {**self.gates().as_dict(), "notes": list(self.result.notes), "answers": self.look.facts}
        if self.spreads:
            values["repeats"] = {name: one._asdict() for name, one in self.spreads.items()}
        if self.single:
            values["each"] = together_values(self.single)
        if self.found is not None:
            values["protocol"] = {name: self.found.as_dict(name) for name in self.result.clean}
        if self.rounded:
            values["float_valued"] = _gates(self.result, self.max_drop, rounded=False).as_dict()
        return values

    def settings(self) -> dict[str, Any]:
        """Return what the record's settings hold beside budget and data."""
        own: dict[str, Any] = {**self.result.settings, "samples": self.result.samples, "max_drop": self.max_drop}
        protocol = {} if self.found is None else {"protocol": self.found.protocol.name}
        return {**own, **protocol} | ({"grid": "uint8"} if self.rounded else {})

    def show(self) -> None:
        """Print everything, the verdicts first."""
        for line in text_lines(self.gates()):
            print(line)
        for name, one in self.spreads.items():
            print(f"{name}: {one.text()}")
        if self.single:
            table("every attack by itself, corrected for their number", COLUMNS, together_rows(self.single))
        if self.rounded:
            table("the gate is on 8-bit pixels; side by side", WORST_COLUMNS, worst_rows(self.result))
        if self.found is not None:
            show_protocol(self.found)
        for note in self.result.notes:
            print(f"note: {note}")


def _gates(result: SuiteResult, max_drop: float, *, rounded: bool) -> Comparison:
    """Compare float and engine on images as they are, or after rounding."""
    parent, deployed = (eight_bit(name) if rounded else name for name in ("float", "engine"))
    return compare_paired(
        result.clean[parent], result.robust[parent], result.clean[deployed], result.robust[deployed], max_drop=max_drop
    )
