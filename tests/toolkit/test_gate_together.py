"""Several gates at once share one error rate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rctk.gate import compare_paired
from rctk.gate_together import (
    exit_code_of,
    gate_bundles,
    gate_together,
    rows_of,
    together_of_bundles,
    together_rows,
    together_values,
)
from rctk.statistics.holm import holm, non_inferiority_p


def flags(*, both, float_only, engine_only, neither=0):
    float_ok = np.repeat([True, True, False, False], [both, float_only, engine_only, neither])
    engine_ok = np.repeat([True, False, True, False], [both, float_only, engine_only, neither])
    return float_ok, engine_ok


def test_a_gate_that_holds_alone_may_not_hold_among_three():
    """p 0.0275 alone is below 0.05; as the smallest of three it counts three times."""
    alone = non_inferiority_p(0, 0, 180, 0.02)
    assert alone == pytest.approx(0.0275, abs=5e-4)
    close = flags(both=180, float_only=0, engine_only=0)
    worse = flags(both=176, float_only=4, engine_only=0)
    assert gate_together({"a": close}, 0.02)["a"].corrected.outcome == "holds"
    three = gate_together({"a": close, "b": worse, "c": worse}, 0.02)
    assert three["a"].corrected.outcome == "not enough samples"
    assert three["a"].corrected.p_holds == pytest.approx(3 * alone)


def test_the_p_values_are_those_of_holm():
    pairs = {str(k): flags(both=300 - k, float_only=k, engine_only=0) for k in range(4)}
    found = [gate.corrected.p_holds for gate in gate_together(pairs, 0.02).values()]
    assert found == pytest.approx(holm([non_inferiority_p(k, 0, 300, 0.02) for k in range(4)]))


def test_what_is_printed_and_recorded_names_every_gate():
    gates = gate_together({"fgsm": flags(both=100, float_only=60, engine_only=0, neither=40)}, 0.02)
    assert together_rows(gates)[0][:3] == ("fgsm", "80.0 %", "50.0 %")
    assert together_rows(gates)[0][-1] == "does not hold"
    values = together_values(gates)["fgsm"]
    assert (values["float_only"], values["samples"], values["outcome"]) == (60, 200, "does not hold")


def comparison(*, float_only, n=180, disbelief=""):
    clean = flags(both=n, float_only=0, engine_only=0)
    robust = flags(both=n - float_only, float_only=float_only, engine_only=0)
    found = compare_paired(clean[0], robust[0], clean[1], robust[1], max_drop=0.02)
    return replace(found, disbelief=disbelief)


def test_of_several_bundles_each_is_judged_by_its_worse_gate_and_all_together():
    alone = non_inferiority_p(0, 0, 180, 0.02)
    one = gate_bundles({"a": comparison(float_only=0)})
    assert one["a"].p_holds == pytest.approx(alone)
    assert (one["a"].outcome, exit_code_of(one)) == ("holds", 0)
    two = gate_bundles({"a": comparison(float_only=0), "b": comparison(float_only=4)})
    assert two["a"].p_holds == pytest.approx(2 * alone)  # above 0.05 now
    assert two["b"].p_holds == pytest.approx(non_inferiority_p(4, 0, 180, 0.02))
    assert (two["a"].outcome, exit_code_of(two)) == ("not enough samples", 3)


def test_a_bundle_that_holds_is_enough_and_none_that_does_is_a_failure():
    good, bad = comparison(float_only=0, n=1000), comparison(float_only=200, n=1000)
    assert exit_code_of(gate_bundles({"a": good, "b": bad})) == 0
    assert gate_bundles({"a": good, "b": bad})["b"].outcome == "does not hold"
    assert exit_code_of(gate_bundles({"a": bad, "b": bad})) == 1
    masked = gate_bundles({"a": comparison(float_only=0, n=1000, disbelief="the gradient is masked")})
    assert exit_code_of(masked) == 1
    assert rows_of(masked)[0][-1] == "does not hold the gradient is masked"
    assert together_of_bundles(masked)["a"]["outcome"] == "does not hold"
