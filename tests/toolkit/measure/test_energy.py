from __future__ import annotations

import time

import pytest

from rctk.measure.energy import Sampler, curve, energy_values
from rctk.measure.power_sensors import Probe

S = 10**9


def watts(value, rail="ina3221 VDD_IN", **more):
    return Probe(rail=rail, kind="power", read=value, **more)


def ticking(seconds):
    """A clock that the test moves, in seconds."""
    state = {"now": seconds}
    return state, lambda: int(state["now"] * S)


def sampled(probes, levels):
    """Sample once per second; ``levels`` is what the clock-driven probes see."""
    state, clock = ticking(0.0)
    sampler = Sampler(probes(state), clock)
    for second in range(levels):
        state["now"] = float(second)
        sampler.sample()
    return sampler


def test_energy_above_idle_of_a_known_run():
    # 2 W for the first ten seconds, then 5 W
    sampler = sampled(lambda state: [watts(lambda: 2.0 if state["now"] <= 10 else 5.0)], 41)
    values = energy_values(sampler, (0, 10 * S), [(12 * S, 22 * S), (30 * S, 40 * S)], images=100)
    assert (values["idle_w"], values["mean_w"], values["energy_window_s"]) == (2.0, 5.0, 20.0)
    assert values["image_j"] == pytest.approx((5 - 2) * 20 / 100)
    assert values["image_with_idle_j"] == pytest.approx(1.0)
    assert values["energy_total_of"] == ["ina3221 VDD_IN"]
    assert values["energy_samples"] == 22
    assert values["energy_note"] == ""


def test_what_runs_between_the_windows_is_not_counted():
    # another engine draws 50 W from second 20 to 29, and none of it belongs to this one
    sampler = sampled(lambda state: [watts(lambda: 50.0 if 20 <= state["now"] < 30 else 5.0)], 51)
    values = energy_values(sampler, (0, 5 * S), [(6 * S, 18 * S), (31 * S, 43 * S)], images=1)
    assert values["mean_w"] == pytest.approx(5.0)


def test_a_counter_that_wraps_is_followed():
    sampler = sampled(
        lambda state: [
            Probe(rail="rapl package-0", kind="energy", read=lambda: 7.0 * state["now"] % 100, wraps_at_j=100)
        ],
        41,
    )
    values = energy_values(sampler, (0, 4 * S), [(5 * S, 40 * S)], images=1)
    assert values["mean_w"] == pytest.approx(7.0)


def test_rails_that_do_not_count_are_shown_and_not_added():
    rails = lambda state: [watts(lambda: 10.0), watts(lambda: 4.0, rail="ina3221 VDD_GPU", counts=False)]  # noqa: E731
    values = energy_values(sampled(rails, 30), (0, 5 * S), [(6 * S, 28 * S)], images=1)
    assert values["mean_w"] == 10.0
    assert values["energy_rails"]["ina3221 VDD_GPU"] == {"mean_w": 4.0, "idle_w": 4.0, "counts": False}


def test_a_sensor_that_vanishes_is_said_and_the_rest_goes_on():
    def rails(state):
        def gone():
            if state["now"] > 15:
                raise OSError(6, "No such device or address")
            return 3.0

        return [watts(gone), watts(lambda: 1.0, rail="ina3221 VDD_SOC")]

    values = energy_values(sampled(rails, 30), (0, 5 * S), [(6 * S, 28 * S)], images=1)
    assert (values["mean_w"], values["image_j"]) == (None, None)  # a total without one of its rails would be too low
    assert values["energy_rails"]["ina3221 VDD_SOC"]["mean_w"] == 1.0
    assert values["energy_note"] == "ina3221 VDD_IN vanished in mid-run: No such device or address"


def test_a_short_window_is_doubted():
    values = energy_values(sampled(lambda _: [watts(lambda: 1.0)], 9), (0, 3 * S), [(4 * S, 8 * S)], images=1)
    assert values["energy_note"] == "4.0 s with 5 samples; at least 10 s are wanted"


def test_a_window_beyond_the_samples_has_no_energy():
    values = energy_values(sampled(lambda _: [watts(lambda: 1.0)], 5), (0, 1 * S), [(2 * S, 60 * S)], images=1)
    assert values["mean_w"] is None
    assert "too slow" in values["energy_note"]


def test_an_empty_curve_is_no_error():
    assert curve([], [], "power").joules.tolist() == []


def test_the_thread_samples_about_as_often_as_it_is_told_and_ends():
    reads = []
    with Sampler([watts(lambda: reads.append(1) or 1.0)], interval_s=0.01) as sampler:
        time.sleep(0.2)
    assert 4 <= len(reads) <= 24
    assert not sampler._thread.is_alive()
    assert sampler.curves()["ina3221 VDD_IN"].covers([])
