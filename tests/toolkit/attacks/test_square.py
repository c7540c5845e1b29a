from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchattacks
from pyautoattack.square import SquareAttack

from rctk.attacks import ATTACKS
from rctk.attacks.draws import image_seeds, words
from rctk.attacks.square import Square
from rctk.attacks.square_moves import MOVES, bump, signs, windows
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError

EPS = ThreatModel(eps=0.1)


def rng(seed=0):
    return np.random.default_rng(seed)


def images(count, shape=(1, 6, 7), seed=0):
    return rng(seed).uniform(0.3, 0.7, (count, *shape)).astype(np.float32)


class Weighted:
    """Two classes, ``w . x + bias`` against 0; exact and independent of the batch. Counts what each image is asked."""

    def __init__(self, w, bias=0.0):
        self.w, self.bias, self.calls = w, bias, []

    def __call__(self, x):
        assert x.dtype == np.float32
        self.calls.append(len(x))
        score = np.array([math.fsum((one * self.w).ravel().tolist()) + self.bias for one in x])
        return np.stack([score, np.zeros(len(x))], axis=1).astype(np.float32)


def test_areas_halve_where_the_schedule_says():
    square = Square(queries=10_000, p_init=0.8)
    expected = {
        0: 0.8,
        10: 0.8,
        11: 0.4,
        50: 0.4,
        51: 0.2,
        501: 0.05,
        8000: 0.8 / 256,
        8001: 0.8 / 512,
        9999: 0.8 / 512,
    }
    assert {query: square.area(query) for query in expected} == expected
    assert Square(queries=1000).area(1) == 0.8
    assert Square(queries=1000).area(2) == 0.4  # the schedule is scaled to the budget


@pytest.mark.parametrize("query", [0, 7, 10, 11, 49, 50, 200, 999, 4000, 9000])
def test_the_schedule_is_the_official_one(query):
    official = SquareAttack(None, n_queries=5000, eps=0.1, p_init=0.8)
    assert Square(queries=5000).area(query) == official.p_selection(query)


@pytest.mark.parametrize(("side", "area"), [(25, 0.6), (8, 0.0625), (1, 0.0002)])
def test_sides_of_squares_by_hand(side, area):
    # sqrt(0.6 * 1024) = 24.8, sqrt(0.0625 * 1024) = 8, and never less than a pixel
    assert MOVES["linf"].side(area, (3, 32, 32)) == side


def test_sides_stay_inside_and_are_odd_in_l2():
    assert MOVES["linf"].side(0.8, (3, 4, 40)) == 4
    assert [MOVES["l2"].side(area, (1, 32, 32)) for area in (0.0002, 0.015, 0.6)] == [3, 5, 25]
    assert MOVES["l2"].side(0.5, (1, 2, 9)) == 2


def test_windows_are_views_of_the_images():
    x = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    view = windows(x, 2)
    assert view.shape == (2, 3, 3, 4, 2, 2)
    np.testing.assert_array_equal(view[1, 2, 2, 3], x[1, 2, 2:4, 3:5])
    view[0, 0, 0, 0] = -1
    assert x[0, 0, 0, 0] == x[0, 0, 1, 1] == -1


@pytest.mark.parametrize("side", [1, 2, 3, 5, 6, 11, 24])
@pytest.mark.parametrize("order", [1, 2])
def test_the_patterns_of_l2_and_l1_are_the_official_ones(side, order):
    official = SquareAttack(None, norm=f"L{order}", eps=1.0, device="cpu")
    torch.manual_seed(0)
    pattern, mine = official.eta(side).numpy(), bump(side, order)  # theirs is turned by chance
    assert any(np.allclose(pattern, turned, atol=1e-6) for turned in (mine, mine.T))
    assert np.isclose((np.abs(mine) ** order).sum(), 1)


@pytest.mark.parametrize("channels", [1, 3, 64, 65, 200])
def test_signs_are_balanced_and_independent_of_each_other(channels):
    draws = words(np.arange(2000, dtype=np.uint64), 0, 1)[:, 0]
    found = signs(draws, channels, np.float32(2))[:, :, 0, 0]
    assert found.shape == (2000, channels)
    assert set(np.unique(found)) == {-2, 2}
    assert np.abs(found.mean(axis=0)).max() < 0.25
    if channels > 1:
        assert np.abs(np.corrcoef(found.T)[0, 1:]).max() < 0.12


def move(norm, x, side, query=1):
    moves, eps = MOVES[norm], np.float32(0.1)
    seeds = image_seeds(x, 0)
    current = moves.start(x, seeds, eps)
    before = current.copy()
    candidate, settle = moves.propose(current, x, side, words(seeds, moves.draws * query, moves.draws), eps)
    return before, candidate.copy(), current, settle


def test_the_linf_start_is_vertical_stripes_of_the_full_budget():
    x = images(50)
    before, *_ = move("linf", x, 2)
    stripes = np.round((before - x) / 0.1, 4)
    assert set(np.unique(stripes)) == {-1, 1}
    assert (stripes == stripes[:, :, :1]).all()
    assert 0.3 < (stripes[:, 0, 0] > 0).mean() < 0.7
    assert not (stripes[0] == stripes[1:]).all(axis=(1, 2, 3)).any() or len(np.unique(stripes[:, 0, 0], axis=0)) > 30


def test_a_linf_move_paints_one_square_in_each_image_at_a_place_of_its_own():
    x = images(300)
    before, after, *_ = move("linf", x, 3)
    changed = (before != after).any(axis=1)
    rows, columns = changed.any(axis=2), changed.any(axis=1)
    assert rows.any(axis=1).all()  # no move is idle
    assert max(rows.sum(axis=1).max(), columns.sum(axis=1).max()) <= 3
    assert rows[:, -1].any()  # the last row and column are reached too
    assert columns[:, -1].any()
    assert len(np.unique(np.abs(changed).reshape(300, -1), axis=0)) > 20
    np.testing.assert_allclose(np.abs(after - x), 0.1, atol=1e-6)


@pytest.mark.parametrize("norm", MOVES)
def test_settling_keeps_what_was_better_and_puts_back_the_rest(norm):
    before, after, current, settle = move(norm, images(20, (3, 9, 8)), 3)
    kept = np.arange(20) % 3 == 0
    settle(kept)
    np.testing.assert_array_equal(current[kept], after[kept])
    np.testing.assert_array_equal(current[~kept], before[~kept])


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 12), (3, 32, 32), (1, 3, 7), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("query", [1, 2, 3])
def test_an_l2_move_spends_the_whole_budget_and_changes_two_windows(shape, query):
    x = images(30, shape)
    side = MOVES["l2"].side(0.05, shape)
    before, after, *_ = move("l2", x, side, query)
    for candidates in (before, after):
        np.testing.assert_allclose(np.sqrt(((candidates - x) ** 2).sum(axis=(1, 2, 3))), 0.1, atol=1e-5)
    assert not np.array_equal(before, after)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 12), (2, 2, 2)], ids=str)
def test_an_l1_move_spends_the_budget_where_the_box_allows_and_on_few_pixels(shape):
    x = images(30, shape)
    size = 0.02 * np.prod(shape)
    start, proposed = moves_l1(x, np.float32(size))
    for candidates in (start, proposed):
        spent = np.abs(candidates - x).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(spent, size, rtol=1e-4)
        assert candidates.min() >= 0
        assert candidates.max() <= 1
    assert not np.array_equal(start, proposed)


def moves_l1(x, eps):
    """The start in l1, and the first proposal from it."""
    seeds = image_seeds(x, 0)
    start = MOVES["l1"].start(x, seeds, eps)
    return start, MOVES["l1"].propose(start, x, MOVES["l1"].side(0.2, x.shape[1:]), words(seeds, 3, 3), eps)[0]


def test_square_in_l1_is_no_weaker_than_the_official_one(digits):
    split = digits.split.take(np.arange(40))
    x, y = torch.from_numpy(split.images), torch.from_numpy(split.labels)

    def predict(queries):
        with torch.no_grad():
            return digits.plain(torch.from_numpy(queries)).numpy()

    def right(found):
        return int((predict(np.asarray(found)).argmax(1) == split.labels).sum())

    with torch.random.fork_rng(devices=[]):
        official = SquareAttack(
            digits.plain, norm="L1", eps=2.0, n_queries=200, device="cpu", seed=0, resc_schedule=True
        )
        theirs = right(official.perturb(x, y))
    threat = ThreatModel(norm="l1", eps=2.0)
    ours = Square(queries=200)(predict, split.images, split.labels, threat, rng())
    assert right(ours) <= theirs + 1
    assert right(ours) < right(x) - 5
    assert np.abs(ours - split.images).sum(axis=(1, 2, 3)).max() <= 2.0 + 1e-4


def test_square_breaks_an_image_of_a_linear_model_just_inside_the_budget():
    w = rng(3).normal(size=(1, 6, 7))
    x = images(8)
    reach = 0.1 * np.abs(w).sum()
    for share, breakable in ((0.8, True), (1.02, False)):
        bias = share * reach - np.array([math.fsum((one * w).ravel().tolist()) for one in x])
        for one, b in zip(x, bias, strict=True):
            model = Weighted(w, b)
            out = Square(queries=1500)(model, one[None], np.array([0]), EPS, rng())
            assert (model(out).argmax(1) != 0).item() == breakable


def test_a_tie_is_no_success_unless_the_argmax_says_so():
    class Tie:
        def __init__(self):
            self.asked = 0

        def __call__(self, x):
            self.asked += len(x)
            return np.zeros((len(x), 3), dtype=np.float32)  # argmax is class 0

    correct, wrong = Tie(), Tie()
    Square(queries=30)(correct, images(2), np.array([0, 0]), EPS, rng())
    Square(queries=30)(wrong, images(2), np.array([1, 2]), EPS, rng())
    assert (correct.asked, wrong.asked) == (60, 2)


def test_broken_images_leave_and_no_image_exceeds_its_budget():
    w = np.ones((1, 6, 7))
    x = np.concatenate([np.full((3, 1, 6, 7), 0.5), np.full((2, 1, 6, 7), 0.9)]).astype(np.float32)
    model = Weighted(w, -0.45 * 42)  # the first three break, the others cannot
    out = Square(queries=60)(model, x, np.zeros(5, dtype=np.int64), EPS, rng())
    assert len(model.calls) == 60
    assert model.calls[0] == 5
    assert model.calls[-1] == 2
    assert model.calls == sorted(model.calls, reverse=True)
    assert (model(out).argmax(1) != 0).tolist() == [True, True, True, False, False]


def test_one_query_returns_the_start():
    model = Weighted(np.ones((1, 6, 7)), 100)
    x = images(3)
    out = Square(queries=1)(model, x, np.zeros(3, dtype=np.int64), EPS, rng())
    assert model.calls == [3]
    np.testing.assert_allclose(np.abs(out - x), 0.1, atol=1e-6)


def test_the_margin_never_rises_from_query_to_query():
    model = Weighted(rng(1).normal(size=(1, 6, 7)), 50.0)
    x = images(4)
    margins = [
        model(Square(queries=q)(model, x, np.zeros(4, dtype=np.int64), EPS, rng()))[:, 0]
        for q in (1, 2, 5, 20, 100, 400)
    ]
    assert (margins[0] > margins[-1]).all()
    assert (margins[-2] < margins[0]).all()


@pytest.mark.parametrize("norm", MOVES)
def test_results_do_not_depend_on_the_batch(norm):
    model = Weighted(rng(2).normal(size=(3, 6, 6)), 0.3)
    x = images(12, (3, 6, 6))
    y = model(x).argmax(1)
    threat = ThreatModel(norm=norm, eps=0.05)
    whole = Square(queries=50)(model, x, y, threat, rng())
    parts = [Square(queries=50)(model, x[rows], y[rows], threat, rng()) for rows in np.array_split(np.arange(12), 5)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_logits_of_the_engine_are_not_edited():
    frozen = np.zeros((2, 3), dtype=np.float32)
    frozen.flags.writeable = False
    Square(queries=5)(lambda x: frozen[: len(x)], images(2), np.array([0, 0]), EPS, rng())


def test_torchattacks_edits_them():
    class Model(torch.nn.Module):
        def forward(self, x):
            with torch.inference_mode():
                return torch.ones(len(x), 3)

    attack = torchattacks.Square(Model(), eps=0.1, n_queries=3)
    attack.set_device("cpu")
    with torch.random.fork_rng(), pytest.raises(RuntimeError, match="nference"):
        attack(torch.rand(2, 1, 6, 6), torch.tensor([0, 0]))


def test_torchattacks_fails_in_l2_on_images_that_are_not_square_and_ours_does_not():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4))
    x = images(4, (1, 16, 12))
    y = model(torch.from_numpy(x)).argmax(1)
    attack = torchattacks.Square(model, norm="L2", eps=1e-3)
    with torch.random.fork_rng(), pytest.raises(RuntimeError, match="size"):
        attack(torch.from_numpy(x), y)
    predict = lambda batch: model(torch.from_numpy(batch)).detach().numpy()  # noqa: E731
    out = Square(queries=20)(predict, x, y.numpy(), ThreatModel(norm="l2", eps=1e-3), rng())
    assert out.shape == x.shape


@pytest.mark.parametrize("text", ["square:queries=0", "square:p_init=0", "square:p_init=1.1"])
def test_settings_that_make_no_sense_are_refused(text):
    with pytest.raises(OptionError):
        ATTACKS.build(text)


def test_query_attacks_and_their_judge_run_without_torch():
    code = """
import sys
for name in ("torch", "onnx", "scipy", "matplotlib", "torchattacks"):
    sys.modules[name] = None
import numpy as np
from rctk.attacks import ATTACKS
from rctk.data.split import Split
from rctk.evaluation.judge import evaluate
from rctk.evaluation.suite import Subject, attack_subjects
from rctk.threat import ThreatModel
w = np.random.default_rng(0).normal(size=(48, 3)).astype(np.float32)
predict = lambda x: x.reshape(len(x), -1) @ w
images = np.random.default_rng(1).random((20, 3, 4, 4)).astype(np.float32)
split = Split(name="s", images=images, labels=predict(images).argmax(1))
for text in ("square:queries=50", "noise"):
    result = evaluate(predict, split, ATTACKS.build(text), ThreatModel(eps=0.5), seed=0)
    assert result.clean_accuracy == 1 and result.robust_accuracy < 1, result.robust_accuracy
engine = Subject(name="engine", predict=predict)
attack_subjects([engine], split, ["square:queries=9"], ThreatModel(), seed=0, batch_size=8)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
