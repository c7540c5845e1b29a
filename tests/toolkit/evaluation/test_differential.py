from __future__ import annotations

import json

import numpy as np
import pytest

from rctk.data.split import Split
from rctk.evaluation.differential import DEFAULT_SEARCHES, differential
from rctk.evaluation.suite import Subject
from rctk.threat import ThreatModel
from rctk_kernels.errors import AttackError, DataError, OptionError

EPS = ThreatModel(eps=0.1)
SEARCHES = ("diva", "pgd", "border-walk:steps=30", "disagreement:queries=60")


class Rounded:
    """An engine: rounded weights and rounded logits, which its twin lacks."""

    def __init__(self, exact, steps=8):
        self.exact = type(exact)()
        self.exact.w = np.round(exact.w * steps) / steps

    def __call__(self, images):
        return np.round(self.exact(images) * 64) / 64


@pytest.fixture
def engine(linear):
    return Rounded(linear)


@pytest.fixture
def forms(linear, engine):
    return (
        Subject(name="float", predict=linear, model=linear.module()),
        Subject(name="engine", predict=engine, model=engine.exact.module()),
    )


@pytest.fixture
def split(linear, make_split):
    return make_split(linear, count=50, wrong=4)


def run(forms, split, searches=SEARCHES, **settings):
    return differential(*forms, split, EPS, **({"searches": searches, "seed": 0, "batch_size": 16} | settings))


def test_what_is_reported_is_what_both_real_models_say(linear, engine, forms, split):
    result = run(forms, split)
    right = (linear(split.images).argmax(1) == split.labels) & (engine(split.images).argmax(1) == split.labels)
    np.testing.assert_array_equal(result.rows, np.flatnonzero(right))
    x, y = split.images[result.rows], split.labels[result.rows]
    forward, reverse = result.directions
    assert (forward.fooled, forward.unaware, reverse.fooled, reverse.unaware) == ("engine", "float", "float", "engine")
    for direction, victim, observer in ((forward, engine, linear), (reverse, linear, engine)):
        evasive = (victim(direction.adversarial).argmax(1) != y) & (observer(direction.adversarial).argmax(1) == y)
        np.testing.assert_array_equal(direction.union.evasive, evasive)
        assert evasive.any()
        np.testing.assert_array_equal(direction.adversarial[~evasive], x[~evasive])
        assert np.abs(direction.adversarial - x).max() <= EPS.eps + 1e-6
        found = np.any([search.evasive for search in direction.searches.values()], axis=0)
        np.testing.assert_array_equal(found, evasive)
        for search in direction.searches.values():
            assert (search.evasive <= search.fooled).all()


def test_shares_and_their_intervals(forms, split):
    result = run(forms, split)
    search = result.directions[0].searches["border-walk:steps=30"]
    n = len(search.fooled)
    assert search.success[:2] == (search.fooled.sum(), n)
    assert search.evasive_share[:2] == (search.evasive.sum(), n)
    assert search.evasion[:2] == (search.evasive.sum(), search.fooled.sum())
    assert search.evasion.low <= search.evasion.value <= search.evasion.high
    values = json.loads(json.dumps(result.as_dict()))
    assert values["common"] == n
    assert values["directions"][0]["fooled"] == "engine"
    assert values["directions"][0]["searches"]["border-walk:steps=30"]["evasive"]["hits"] == search.evasive.sum()


def test_every_query_is_counted(linear, forms, split):
    engine = forms[1].predict
    before = len(linear.batches), len(engine.exact.batches)
    result = run(forms, split)
    for name, batches in (("float", linear.batches[before[0] :]), ("engine", engine.exact.batches[before[1] :])):
        assert result.queries[name].sum() == sum(batches)
    assert result.forward_passes == result.backward_passes > 0  # every pass takes a gradient
    assert result.notes == ()


def test_replaying_every_iterate_finds_at_least_as_much_as_the_last_one_alone(forms, split):
    every, last = (run(forms, split, ("pgd",), replay_every=n).directions[0].searches["pgd"] for n in (1, 20))
    assert (last.evasive <= every.evasive).all()
    assert every.evasive.sum() > last.evasive.sum()  # plain PGD runs past the strip where the models disagree


def test_two_models_that_are_the_same_are_never_driven_apart(linear, split):
    forms = [Subject(name=name, predict=linear, model=linear.module()) for name in ("float", "engine")]
    result = run(forms, split)
    for direction in result.directions:
        assert not direction.union.evasive.any()
        assert direction.searches["pgd"].fooled.any()
        assert direction.union.evasion.value == 0


def test_without_gradients_the_search_on_answers_remains(linear, engine, split):
    forms = (Subject(name="float", predict=linear), Subject(name="engine", predict=engine))
    result = run(forms, split)
    assert list(result.directions[0].searches) == ["disagreement:queries=60"]
    assert result.directions[0].union.evasive.any()
    assert result.forward_passes == 0
    assert result.notes == ("float has no differentiable model: diva, pgd, border-walk:steps=30 did not run",)
    with pytest.raises(OptionError, match="diva need gradients, float has none; search with disagreement"):
        run(forms, split, ("diva",))


def test_the_same_seed_gives_the_same_result(forms, split):
    first, second = run(forms, split), run(forms, split)
    for one, two in zip(first.directions, second.directions, strict=True):
        np.testing.assert_array_equal(one.adversarial, two.adversarial)
    for name in ("float", "engine"):
        np.testing.assert_array_equal(first.queries[name], second.queries[name])


def test_on_the_pixel_grid_the_stored_images_are_levels(linear, engine, forms, split):
    levels = np.round(split.images * 255) / np.float32(255)
    labels = linear(levels).argmax(1)
    result = differential(
        *forms,
        Split(name="s", images=levels, labels=labels),
        ThreatModel(eps=12 / 255, grid="uint8"),
        searches=SEARCHES,
        seed=0,
        batch_size=16,
    )
    stored = result.directions[0].adversarial
    np.testing.assert_allclose(np.round(stored * 255), stored * 255, atol=1e-4)
    assert np.abs(np.round((stored - levels[result.rows]) * 255)).max() <= 12


def test_bad_settings_are_refused(linear, forms, split):
    with pytest.raises(OptionError, match="replay_every must be at least 1"):
        run(forms, split, replay_every=0)
    with pytest.raises(OptionError, match="did you mean 'diva'"):
        run(forms, split, ("divan",))
    with pytest.raises(AttackError, match="diva runs in linf and l2, got l1"):
        differential(*forms, split, ThreatModel(norm="l1", eps=1), searches=("diva",), seed=0, batch_size=16)
    wrong = Split(name="s", images=split.images, labels=(linear(split.images).argmax(1) + 1) % 3)
    with pytest.raises(DataError, match="float and engine get no image right together"):
        run(forms, wrong)


def test_a_twin_that_gives_no_gradient_is_refused(linear, engine, forms, split):
    from torch import nn

    class ForwardOnly(nn.Module):
        def forward(self, x):
            return linear.module()(x.detach())

    with pytest.raises(AttackError, match="gives no gradient"):
        run((forms[0], Subject(name="engine", predict=engine, model=ForwardOnly())), split, ("pgd",))


def test_the_default_searches_hold_both_gradient_objectives_and_one_without_gradients():
    assert set(DEFAULT_SEARCHES) == {"diva", "pgd", "border-walk", "disagreement"}
