"""Several gates at once share one error rate."""

from __future__ import annotations

import numpy as np
import pytest

from rctk.gate_together import gate_together, together_rows, together_values
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
