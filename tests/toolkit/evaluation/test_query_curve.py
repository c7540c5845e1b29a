from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from rctk.attacks import ATTACKS
from rctk.attacks.attack import ask, query
from rctk.data.split import Split
from rctk.evaluation.judge import evaluate
from rctk.evaluation.query_curve import NEVER, Watch, query_curve
from rctk.threat import ThreatModel
from rctk_kernels.errors import AttackError, OptionError

EPS = ThreatModel(eps=0.1)


def bright(x):
    """Class 1 from a mean of 0.5 on."""
    return np.stack([np.full(len(x), 0.5), x.mean(axis=(1, 2, 3))], axis=1).astype(np.float32)


def flat(*pixels):
    return np.stack([np.full((1, 2, 2), pixel, dtype=np.float32) for pixel in pixels])


@dataclass(frozen=True, kw_only=True)
class Climb:
    """Query number ``k`` is the original plus ``k`` times 0.03; far beyond the budget at the end."""

    name: ClassVar[str] = "climb"
    kind: ClassVar[str] = "query"
    passes: ClassVar[int] = 6
    packed: bool = False

    def __call__(self, predict, x, y, threat, rng):
        steps = np.float32(0.03) * np.arange(1, 7, dtype=np.float32)
        if self.packed:
            images, rows = (x[:, None] + steps[:, None, None, None]).reshape(-1, 1, 2, 2), np.arange(len(x)).repeat(6)
            query(predict, images, rows)
        else:
            for step in steps:
                ask(predict, x + step, y, np.arange(len(x)))
        return x + np.float32(0.18)


SPLIT = Split(
    name="flat",
    images=flat(0.48, 0.45, 0.6, 0.42, 0.403, 0.2, 0.41),
    labels=np.array([0, 0, 0, 0, 0, 0, 0]),
)


@pytest.mark.parametrize("packed", [False, True])
def test_an_image_breaks_at_its_first_wrong_answer_inside_the_budget(packed):
    curve = query_curve(bright, SPLIT, Climb(packed=packed), EPS, seed=0, batch_size=2)
    # 0.48 + 0.03; 0.45 + 0.06; 0.6 is wrong as it is; 0.42 + 0.09; 0.403 + 0.12 is outside, but its projection
    # breaks, so its last query counts; 0.2 is robust; 0.41 + 0.09 reaches 0.5, a tie that the model decides for 0
    assert curve.broken_at.tolist() == [1, 2, 0, 3, 6, NEVER, 6]
    assert curve.budget == 6
    assert curve.median_queries() == 3


def test_the_curve_falls_from_the_clean_to_the_robust_accuracy():
    curve = query_curve(bright, SPLIT, Climb(), EPS, seed=0)
    queries, robust = curve.points()
    assert queries.tolist() == [0, 1, 2, 3, 6]
    np.testing.assert_allclose(robust, np.array([6, 5, 4, 3, 1]) / 7)
    assert robust[0] == curve.result.clean_accuracy
    assert robust[-1] == curve.result.robust_accuracy
    assert curve.robust_accuracy(5) == 3 / 7


@pytest.mark.parametrize("text", ["square:queries=60", "nes:queries=150", "rays:queries=150", "noise:tries=9"])
def test_watching_changes_nothing(text):
    w = np.random.default_rng(0).normal(size=(16, 4))

    def predict(x):
        return (x.reshape(len(x), 16, 1) * w).sum(axis=1).astype(np.float32)

    images = np.random.default_rng(1).random((30, 1, 4, 4), dtype=np.float32)
    labels = predict(images).argmax(axis=1)
    labels[::5] = (labels[::5] + 1) % 4
    split = Split(name="own", images=images, labels=labels)
    plain = evaluate(predict, split, ATTACKS.build(text), EPS, seed=3, batch_size=1)
    curve = query_curve(predict, split, ATTACKS.build(text), EPS, seed=3, batch_size=1)
    np.testing.assert_array_equal(curve.result.adversarial, plain.adversarial)
    np.testing.assert_array_equal(curve.result.queries, plain.queries)
    assert curve.result.settings == plain.settings
    assert (curve.broken_at == 0).tolist() == (~plain.clean).tolist()
    assert (curve.broken_at == NEVER).tolist() == plain.robust.tolist()
    broke = plain.clean & ~plain.robust
    assert broke.sum() > 3 or text.startswith("noise")
    assert (curve.broken_at[broke] <= plain.queries[broke] - 2).all()


def test_nothing_to_attack_and_nothing_broken():
    wrong = Split(name="wrong", images=flat(0.1, 0.2), labels=np.array([1, 1]))
    curve = query_curve(bright, wrong, Climb(), EPS, seed=0)
    assert curve.broken_at.tolist() == [0, 0]
    assert curve.median_queries() is None
    dark = Split(name="dark", images=flat(0.1), labels=np.array([0]))
    assert query_curve(bright, dark, Climb(), EPS, seed=0).points().robust.tolist() == [1, 1]


def test_a_watch_passes_bookings_on():
    heard = []

    class Predict:
        def book(self, rows):
            heard.append(rows.tolist())

        def __call__(self, x):
            return bright(x)

    watch = Watch(Predict(), flat(0.45, 0.49), np.array([0, 0]), EPS)
    query(watch, flat(0.52, 0.48, 0.55, 0.52), np.array([1, 0, 1, 0]))
    assert heard == [[1, 0, 1, 0]]
    assert watch.broken_at.tolist() == [2, 1]


def test_queries_without_a_name_make_no_curve():
    @dataclass(frozen=True)
    class Silent(Climb):
        def __call__(self, predict, x, y, threat, rng):
            predict(x)
            return x

    with pytest.raises(AttackError, match="does not say which images"):
        query_curve(bright, SPLIT, Silent(), EPS, seed=0)


def test_gradient_attacks_have_no_query_curve():
    with pytest.raises(OptionError, match="needs a query attack such as square, got pgd"):
        query_curve(bright, SPLIT, ATTACKS.build("pgd"), EPS, seed=0)
