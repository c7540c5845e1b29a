from __future__ import annotations

import numpy as np
import pytest

from rctk.attacks import lockstep as module
from rctk.attacks.case import Case, cases, stacked
from rctk.attacks.lockstep import fooled, lockstep, log_probability, margin
from rctk.threat import ThreatModel

EPS = ThreatModel(eps=0.1)


def grey(count):
    x = np.full((count, 1, 2, 2), 0.5, dtype=np.float32)
    return x + np.arange(count, dtype=np.float32)[:, None, None, None] / 1000


def never(x):
    return np.tile(np.float32([1, 0]), (len(x), 1))


def bright(x):
    """Class 1 from a mean of 0.55 on."""
    return np.stack([np.full(len(x), 0.55), x.mean(axis=(1, 2, 3))], axis=1).astype(np.float32)


def zeros(count):
    return np.zeros(count, dtype=np.int64)


def test_questions_of_all_images_go_out_together_and_answers_come_back_to_their_own():
    heard, calls = {}, []

    def search(case):
        for count in range(1, case.row + 2):
            said = yield np.repeat(case.x[None], count, axis=0)
            heard.setdefault(case.row, []).append(said.tolist())

    def predict(x):
        calls.append(len(x))
        return np.stack([x[:, 0, 0, 0], np.zeros(len(x))], axis=1)

    x = grey(3)
    found = cases(x, EPS, np.random.default_rng(0), 100)
    lockstep(predict, zeros(3), found, search, margin)
    assert calls == [3, 2 + 2, 3]
    assert {row: [len(part) for part in parts] for row, parts in heard.items()} == {0: [1], 1: [1, 2], 2: [1, 2, 3]}
    assert all(abs(value - x[row, 0, 0, 0]) < 1e-6 for row, parts in heard.items() for part in parts for value in part)
    assert [case.left for case in found] == [99, 97, 94]


def test_the_last_answer_arrives_and_then_the_search_is_closed():
    seen = []

    def search(case):
        try:
            while True:
                said = yield case.x[None]
                seen.append(said.item())
                case.offer(case.x + np.float32(0.01 * len(seen)), -len(seen))
        finally:
            seen.append("closed")

    x = grey(1)
    found = cases(x, EPS, np.random.default_rng(0), 3)
    lockstep(never, zeros(1), found, search, fooled)
    assert seen == [False, False, False, "closed"]
    assert found[0].left == 0
    np.testing.assert_allclose(stacked(found, x), x + 0.03)


def test_the_first_wrong_image_inside_the_budget_ends_a_search_and_one_outside_does_not():
    def search(case):
        said = yield case.legal(case.x + np.float32([0.2, 0.3])[:, None, None, None])
        assert said.tolist() == [True, True]
        yield case.legal(case.x + np.float32([0.01, 0.2, 0.09, 0.095])[:, None, None, None])
        raise AssertionError("the image is broken")

    x = grey(2)
    found = cases(x, EPS, np.random.default_rng(0), 50)
    lockstep(bright, zeros(2), found, search, fooled)
    np.testing.assert_array_equal(stacked(found, x), x + np.float32(0.09))
    assert [case.left for case in found] == [44, 44]


def test_images_wait_when_a_pack_is_full_and_take_the_places_of_those_that_leave(monkeypatch):
    monkeypatch.setattr(module, "PACK", 4 * 4)  # four images of four pixels
    calls = []

    def search(case):
        for _ in range(1 + case.row % 2):
            yield case.x[None]

    def predict(x):
        calls.append(len(x))
        return never(x)

    found = cases(grey(10), EPS, np.random.default_rng(0), 9)
    lockstep(predict, zeros(10), found, search, fooled)
    assert calls == [4, 4, 4, 2, 1]  # 0-3, then 1 3 4 5, 5-8, 7 9, 9
    assert [case.left for case in found] == [8, 7] * 5


def test_a_search_that_asks_nothing_costs_nothing():
    def search(case):
        return
        yield

    x = grey(2)
    found = cases(x, EPS, np.random.default_rng(0), 5)
    lockstep(never, zeros(2), found, search, fooled)
    np.testing.assert_array_equal(stacked(found, x), x)


def test_asking_beyond_the_budget_is_our_bug():
    def search(case):
        yield np.repeat(case.x[None], case.left + 1, axis=0)

    with pytest.raises(AssertionError):
        lockstep(never, zeros(1), cases(grey(1), EPS, np.random.default_rng(0), 2), search, fooled)


def test_margins_and_log_probabilities_by_hand():
    logits, y = np.float32([[2, 0, 1], [0, 0, 3], [1, 1, 1]]), np.array([0, 1, 2])
    assert margin(logits, y).tolist() == [1, -3, 0]
    expected = [-np.log(1 + np.exp(-2) + np.exp(-1)), -np.log(2 + np.exp(3)), -np.log(3)]
    np.testing.assert_allclose(log_probability(logits, y), expected, rtol=1e-12)
    assert fooled(logits, y).tolist() == [False, True, True]


def test_log_probabilities_neither_saturate_nor_overflow():
    sure = log_probability(np.float32([[60, 0], [61, 0], [0, 900], [900, 0]]), np.array([0, 0, 0, 0]))
    np.testing.assert_allclose(sure, [-np.exp(-60), -np.exp(-61), -900, 0], rtol=1e-6, atol=1e-300)
    assert sure[0] < sure[1] < 0


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_inside_is_what_the_judge_leaves_alone(norm):
    threat = ThreatModel(norm=norm, eps=0.1)
    (case,) = cases(np.full((1, 1, 2, 2), 0.5, dtype=np.float32), threat, np.random.default_rng(0), 1)
    shares = np.float32([0.5, 0.999, 1.01, 2])
    way = np.full((1, 2, 2), 0.1 if norm == "linf" else 0.05, dtype=np.float32)
    points = case.x + shares[:, None, None, None] * way
    assert case.inside(points).tolist() == [True, True, False, False]
    assert case.inside(case.project(points)).all()
    np.testing.assert_allclose(case.distances(points), 0.1 * shares, rtol=1e-5)
    np.testing.assert_array_equal(case.within(points[3]), case.project(points)[3])


def test_legal_images_are_pixels_and_on_the_grid_levels():
    x = np.zeros((1, 1, 1, 3), dtype=np.float32)
    points = np.array([[[[-0.2, 0.5001, 1.7]]]])
    (real,) = cases(x, ThreatModel(eps=0.1), np.random.default_rng(0), 1)
    (levels,) = cases(x, ThreatModel(eps=0.1, grid="uint8"), np.random.default_rng(0), 1)
    np.testing.assert_array_equal(real.legal(points)[0, 0, 0], np.float32([0, 0.5001, 1]))
    np.testing.assert_array_equal(levels.legal(points)[0, 0, 0], np.float32([0, 128 / 255, 1]))
    assert levels.legal(points).dtype == np.float32


def test_an_offer_counts_only_when_it_ranks_better():
    case = Case(row=0, x=np.zeros((1, 1, 1), np.float32), threat=EPS, rng=np.random.default_rng(0), left=1)
    for pixel, rank in ((1, 3.0), (2, 3.0), (3, 2.0), (4, 9.0)):
        case.offer(np.full((1, 1, 1), pixel, np.float32), rank)
    assert case.best.item() == 3


def test_each_image_has_random_numbers_of_its_own():
    x = grey(3)
    first, again = (
        [case.rng.random(4).tolist() for case in cases(batch, EPS, np.random.default_rng(1), 1)]
        for batch in (x, x[::-1])
    )
    assert first == again[::-1]
    assert len({tuple(numbers) for numbers in first}) == 3
