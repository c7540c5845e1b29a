"""The 8-bit pixel grid, end to end."""

from __future__ import annotations

import numpy as np
import pytest

from rctk.attacks import ATTACKS
from rctk.attacks.attack import norms
from rctk.data.split import Split
from rctk.evaluation.judge import evaluate
from rctk.evaluation.on_grid import OnGrid
from rctk.evaluation.pairs import beside_each_other
from rctk.evaluation.suite import Subject, attack_subjects
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError

BUDGETS = {"linf": 12.7 / 255, "l2": 0.25, "l1": 1.2}
QUICK = {
    "autoattack": "",
    "border-walk": "steps=10",
    "hopskipjump": "queries=100",
    "nes": "queries=60,pairs=8",
    "noise": "tries=3",
    "rays": "queries=80",
    "signhunter": "queries=40",
    "simba": "queries=40",
    "spsa": "queries=60,samples=16",
    "square": "queries=30",
    "substitute": "rounds=1,epochs=2,steps=5",
    "surfree": "queries=100",
    "zoo": "queries=60",
    "disagreement": "queries=30",
}
SLOW = {"autoattack"}  # made of attacks that are in this list
NAMES = [name for name in ATTACKS.names() if name not in SLOW]


def quick(name):
    member = ATTACKS.load(name)
    fields = member.__dataclass_fields__
    settings = QUICK.get(name) or ("steps=5" if "steps" in fields else "")
    return f"{name}:{settings}" if settings else name


@pytest.fixture
def linear(linear):
    return type(linear)(classes=5)


@pytest.fixture
def split(linear):
    images = np.random.default_rng(1).integers(40, 216, (20, 2, 3, 4)).astype(np.float32) / np.float32(255)
    return Split(name="pixels", images=images, labels=linear(images).argmax(1))


@pytest.fixture
def subjects(linear):
    other = type(linear)(classes=5)
    other.w = np.round(linear.w * 3) / 3
    return beside_each_other(
        Subject(name="float", predict=linear, model=linear.module()),
        Subject(name="engine", predict=other, model=other.module()),
    )


def on_grid(images):
    return bool((np.round(images * 255) / np.float32(255) == images).all())


@pytest.mark.parametrize("name", NAMES)
def test_every_attack_is_judged_on_the_grid_and_in_the_budget(linear, subjects, split, name):
    attack = ATTACKS.build(quick(name))
    norm = norms(attack)[0]
    threat = ThreatModel(norm=norm, eps=BUDGETS[norm], grid="uint8")
    subject = subjects[1]
    result = evaluate(subject.predict, split, attack, threat, seed=0, batch_size=20, model=subject.model)
    assert on_grid(result.adversarial)
    if norm == "linf":
        assert np.abs(np.round((result.adversarial - split.images) * 255)).max() <= 12
    else:
        assert result.l2.max() <= threat.eps + 1e-6
    robust = subject.predict(result.adversarial).argmax(1) == split.labels
    np.testing.assert_array_equal(result.robust, result.clean & robust)


def test_one_run_judges_float_valued_and_rounded_candidates_side_by_side(linear, subjects, split):
    threat = ThreatModel(eps=2.5 / 255)
    result = attack_subjects(
        subjects, split, ["pgd:steps=10", "square:queries=40"], threat, seed=0, batch_size=8, rounded=True
    )
    assert list(result.robust) == ["float", "engine", "float (8-bit)", "engine (8-bit)"]
    for subject in subjects:
        stored = result.adversarial[f"{subject.name} (8-bit)"]
        assert on_grid(stored)
        assert np.abs(np.round((stored - split.images) * 255)).max() <= 2
        again = result.clean[subject.name] & (subject.predict(stored).argmax(1) == split.labels)
        np.testing.assert_array_equal(result.robust[f"{subject.name} (8-bit)"], again)
        # a rounded image is one of the float-valued ones, so rounding never helps the attack
        assert (result.robust[subject.name] <= result.robust[f"{subject.name} (8-bit)"]).all()
        assert not on_grid(result.adversarial[subject.name])
        for entry in result.entries:
            assert (entry.robust[subject.name] <= entry.robust[f"{subject.name} (8-bit)"]).all()
    assert result.settings["rounded"] is True
    assert result.notes == ()


def test_a_budget_between_two_levels_is_worth_less_after_rounding(linear, subjects, split):
    """A linear model breaks at the radius margin / |w_y - w_j|_1; here one that lies between two levels."""
    gap, rows = linear.w[split.labels][:, None] - linear.w[None], np.arange(len(split))
    logits = linear(split.images)
    with np.errstate(invalid="ignore"):
        radius = (logits[rows, split.labels][:, None] - logits) / np.abs(gap).sum(axis=2)
    levels = np.nanmin(radius, axis=1) * 255
    chosen = int(np.argmin(np.abs(levels % 1 - 0.5) + (levels < 2) + (levels > 30)))
    threat = ThreatModel(eps=float(levels[chosen] + 0.2) / 255)
    one = split.take(np.array([chosen]))
    result = attack_subjects(subjects[:1], one, ["apgd-t:steps=30"], threat, seed=0, batch_size=4, rounded=True)
    assert not result.robust["float"].any()
    assert result.robust["float (8-bit)"].all()


def test_an_image_broken_only_by_rounding_counts_for_float_values_too(linear, split):
    """An engine that is wrong on 8-bit images only, except the originals."""

    def engine(images):
        logits = linear(images)
        known = np.isclose(images, split.images[0]).all(axis=(1, 2, 3)) if len(images) else []
        levels = np.round(images * 255) / np.float32(255) == images
        wrong = levels.all(axis=(1, 2, 3)) & ~np.asarray(known, dtype=bool)
        logits[wrong] = -logits[wrong]
        return logits

    one = split.take(np.array([0]))
    subject = Subject(name="engine", predict=engine, model=linear.module())
    threat = ThreatModel(eps=1.5 / 255)
    result = attack_subjects([subject], one, ["noise:tries=1"], threat, seed=0, batch_size=4, rounded=True)
    assert result.clean["engine"].all()
    assert not result.robust["engine (8-bit)"].any()
    assert not result.robust["engine"].any()
    assert on_grid(result.adversarial["engine"])
    assert not result.entries[0].robust["engine"].any()


def test_originals_off_the_grid_are_put_on_it(linear, make_split):
    split = make_split(linear)
    subject = Subject(name="engine", predict=linear, model=linear.module())
    result = attack_subjects([subject], split, ["fgsm"], ThreatModel(eps=0.05), seed=0, batch_size=16, rounded=True)
    assert on_grid(result.adversarial["engine (8-bit)"])
    assert np.abs(result.adversarial["engine (8-bit)"] - split.images).max() <= 0.05 + 1e-6


def test_without_crossing_each_subject_meets_its_own_candidates_rounded_too(subjects, split):
    result = attack_subjects(
        subjects, split, ["fgsm"], ThreatModel(eps=0.05), seed=0, batch_size=8, cross=False, rounded=True
    )
    assert [set(entry.robust) for entry in result.entries] == [
        {"float", "float (8-bit)"},
        {"engine", "engine (8-bit)"},
    ]


def test_a_budget_that_is_rounded_already_is_refused(subjects, split):
    with pytest.raises(OptionError, match="rounded already"):
        attack_subjects(subjects, split, ["fgsm"], ThreatModel(grid="uint8"), seed=0, batch_size=8, rounded=True)


class Watched:
    def __init__(self, predict):
        self.predict, self.shown, self.booked = predict, [], []

    def book(self, rows):
        self.booked.append(rows.tolist())

    def __call__(self, images):
        self.shown.append(images.copy())
        return self.predict(images)


def test_a_query_inside_the_budget_becomes_what_the_judge_would_make_of_it(linear, split):
    threat, watched = ThreatModel(eps=2.7 / 255, grid="uint8"), Watched(linear)
    grid = OnGrid(watched, split.images, threat)
    rows = np.array([3, 5])
    inside = split.images[rows] + np.float32(2.7 / 255)
    grid.book(rows)
    grid(inside)
    np.testing.assert_array_equal(watched.shown[0], threat.project(inside, split.images[rows]))
    assert np.round((watched.shown[0] - split.images[rows]) * 255).max() == 2  # 2.7 levels would round to 3
    assert watched.booked == [[3, 5]]


def test_a_query_far_away_becomes_the_nearest_image_on_the_grid(linear, split):
    watched = Watched(linear)
    grid = OnGrid(watched, split.images, ThreatModel(eps=2 / 255, grid="uint8"))
    far = np.full_like(split.images, 0.5)
    grid(far)
    assert (np.round(watched.shown[0] * 255) == 128).all()  # 127.5 rounds to the even level
    grid(far[:3])  # nobody said which images: they go on unbooked
    assert watched.booked == [list(range(20))]


def test_query_attacks_lose_no_success_to_rounding(linear, split):
    """Every candidate that broke when it was asked is on the grid already, so it still breaks when it is judged."""
    threat, broke = ThreatModel(eps=12 / 255, grid="uint8"), []

    def engine(images):
        assert on_grid(images)
        return linear(images)

    result = evaluate(engine, split, ATTACKS.build("square:queries=60"), threat, seed=0)
    broke = result.clean & ~result.robust
    assert broke.any()
    assert (result.queries[broke] < 62).any()
    assert (result.queries[result.robust] == 62).all()
