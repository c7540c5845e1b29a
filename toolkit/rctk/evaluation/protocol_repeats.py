"""A protocol with several seeds: the worst case per image of all of them, and how far they differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rctk.evaluation.protocol import TIERS, tier_of
from rctk.evaluation.protocol_result import ProtocolResult
from rctk.evaluation.repeats import repeated
from rctk.evaluation.suite import SuiteResult
from rctk.statistics.planning import Spread

ORDER = {tier: index for index, tier in enumerate(TIERS)}


def repeated_protocol(
    run: Callable[[int, bool], ProtocolResult], seed: int, repeats: int
) -> tuple[ProtocolResult, dict[str, Spread]]:
    """Run a protocol with ``repeats`` seeds from ``seed`` on.

    An image counts as broken where any seed broke it, by the first tier that did so with any. The masking audit asks
    whether gradients can be trusted at all and allows for chance once, so it runs with the first seed only; the rates
    of the differential searches are those of the first seed, too.

    Args:
        run: Runs the protocol with a seed, and with the audit where it is told so.
        seed: The first one.
        repeats: Runs; with 1 the spread is empty.
    """
    results: list[ProtocolResult] = []

    def suite(at: int) -> SuiteResult:
        results.append(run(at, at == seed))
        return results[-1].suite

    merged, spreads = repeated(suite, seed, repeats)
    first = results[0]
    if repeats == 1:
        return first, spreads
    entries = tuple(sorted(merged.entries, key=lambda entry: ORDER[tier_of(entry)]))
    missing = {tier: why for tier, why in first.not_run.items() if all(tier in one.not_run for one in results)}
    return replace(first, suite=replace(merged, entries=entries), not_run=missing), spreads
