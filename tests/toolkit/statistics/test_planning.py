import numpy as np
import pytest

from rctk.cli.main import run
from rctk.statistics import non_inferiority
from rctk.statistics.planning import plan_text, rule_of_three, samples_needed, spread
from rctk_kernels.errors import OptionError


def power(n, psi, difference, margin=0.02, runs=1500):
    rng = np.random.default_rng(0)
    lost, won = (psi - difference) / 2, (psi + difference) / 2
    tables = rng.multinomial(n, [lost, won, 1 - psi], size=runs)
    verdicts = {tuple(t): non_inferiority(int(t[0]), int(t[1]), n, margin).outcome for t in np.unique(tables, axis=0)}
    return np.mean([verdicts[tuple(t)] == "holds" for t in tables])


@pytest.mark.parametrize(
    ("psi", "equal", "half_a_point_worse"), [(0.01, 155, 275), (0.02, 310, 549), (0.05, 773, 1374), (0.10, 1546, 2748)]
)
def test_published_table_of_sample_sizes(psi, equal, half_a_point_worse):
    assert samples_needed(0.02, psi) == equal
    assert samples_needed(0.02, psi, true_difference=-0.005) == half_a_point_worse
    assert samples_needed(0.01, psi) == pytest.approx(4 * equal, abs=4)


@pytest.mark.parametrize(("psi", "difference"), [(0.05, 0.0), (0.10, 0.0), (0.05, -0.005)])
def test_the_gate_really_holds_in_four_of_five_runs(psi, difference):
    assert power(samples_needed(0.02, psi, true_difference=difference), psi, difference) == pytest.approx(0.8, abs=0.05)


def test_no_discordance_still_needs_what_the_bound_asks_for():
    n = samples_needed(0.02, 0.0)
    assert non_inferiority(0, 0, n, 0.02).outcome == "holds"
    assert non_inferiority(0, 0, n - 1, 0.02).outcome == "not enough samples"


def test_a_better_engine_needs_fewer_and_more_power_needs_more():
    assert samples_needed(0.02, 0.05, true_difference=0.01) < samples_needed(0.02, 0.05)
    assert samples_needed(0.02, 0.05, power=0.95) > samples_needed(0.02, 0.05)


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(OptionError, match=r"truly loses 0\.02"):
        samples_needed(0.02, 0.05, true_difference=-0.02)
    with pytest.raises(OptionError, match="discordance"):
        samples_needed(0.02, 0.005, true_difference=0.01)


def test_plan_says_which_rows_the_images_are_enough_for():
    lines = plan_text(0.02, 800)
    assert [line.split()[0] for line in lines if line.endswith("enough")] == ["1", "2", "5"]
    assert "800 images" in lines[-1]
    assert not any("enough" in line for line in plan_text(0.02))


def test_plan_of_a_wide_margin_leaves_impossible_rows_open():
    # a quarter of 8 points cannot be lost where float and engine differ on 1 % only
    assert plan_text(0.08)[2].split()[-1] == "-"


def test_rule_of_three_is_just_above_the_exact_bound():
    for n in (10, 100, 1000):
        exact = 1 - 0.05 ** (1 / n)
        assert exact < rule_of_three(n) < exact * 1.17
    assert rule_of_three(1) == 1
    with pytest.raises(OptionError):
        rule_of_three(0)


def test_spread_of_three_known_runs():
    runs = np.array([[1, 1, 0, 0, 1], [1, 0, 0, 0, 1], [1, 1, 0, 1, 0]], dtype=bool)
    result = spread(runs)
    assert (result.runs, result.worst_case, result.low, result.high) == (3, 0.2, 0.4, 0.6)
    assert result.mean == pytest.approx(8 / 15)
    assert result.deviation == pytest.approx(np.std([0.6, 0.4, 0.6], ddof=1))
    assert result.unstable == 0.6  # images 1, 3 and 4
    assert "3 runs: worst case per image 20.0%" in result.text()


def test_one_run_has_no_deviation_and_says_that_more_are_usual():
    result = spread(np.ones((1, 4), dtype=bool))
    assert (result.deviation, result.unstable) == (0.0, 0.0)
    assert "at least 3 runs" in result.text()


@pytest.mark.parametrize("runs", [np.ones(3, dtype=bool), np.ones((2, 3)), np.ones((0, 3), dtype=bool)])
def test_spread_needs_flags_of_runs_and_images(runs):
    with pytest.raises(OptionError, match="runs, images"):
        spread(runs)


def test_compare_plans_without_running_anything(capsys):
    flags = ["no-such-bundle", "--data", "digits:test", "--max-drop", "0.02", "--samples", "400", "--plan"]
    assert run(["compare", *flags]) == 0
    shown = capsys.readouterr().out
    assert shown == "\n".join(plan_text(0.02, 400)) + "\n"
    assert "773" in shown
