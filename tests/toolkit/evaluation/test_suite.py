from __future__ import annotations

import numpy as np
import pytest
import torch

from rctk.attacks import ATTACKS as METHODS
from rctk.data.split import Split
from rctk.evaluation.suite import Subject, attack_subjects
from rctk.threat import ThreatModel
from rctk_kernels.errors import AttackError, DataError, OptionError

EPS = ThreatModel(eps=0.05)
ATTACKS = ["square:queries=30", "apgd-ce:steps=10", "fgsm"]


class Deployed:
    """An engine: the linear model with weights rounded to a few bits, and its logits rounded too."""

    def __init__(self, exact):
        self.exact = exact
        self.w = np.round(exact.w * 3) / 3
        self.batches = exact.batches

    def __call__(self, images):
        kept, self.exact.w = self.exact.w, self.w
        try:
            return np.round(self.exact(images) * 8) / 8
        finally:
            self.exact.w = kept

    def module(self):
        kept, self.exact.w = self.exact.w, self.w
        try:
            return self.exact.module()
        finally:
            self.exact.w = kept


@pytest.fixture
def subjects(linear):
    engine = Deployed(linear)
    return [
        Subject(name="float", predict=linear, model=linear.module()),
        Subject(name="engine", predict=engine, model=engine.module()),
    ]


@pytest.fixture
def split(linear, make_split):
    return make_split(linear, count=60, wrong=6)


def run(subjects, split, attacks=ATTACKS, **settings):
    return attack_subjects(subjects, split, attacks, EPS, **({"seed": 0, "batch_size": 16} | settings))


def test_every_attack_is_crafted_on_every_subject_the_cheapest_first(subjects, split):
    result = run(subjects, split)
    assert [(entry.attack, entry.subject, entry.crafted_on) for entry in result.entries] == [
        ("fgsm", "float", "float"),
        ("fgsm", "engine", "twin"),
        ("apgd-ce:steps=10", "float", "float"),
        ("apgd-ce:steps=10", "engine", "twin"),
        ("square:queries=30", "float", "float"),
        ("square:queries=30", "engine", "engine"),
    ]


def test_tiers_are_named_as_in_the_design(subjects, split):
    result = run(subjects, split, ["fgsm", "square:queries=5"])
    tiers = {(e.attack, e.subject, judged): e.tier(judged) for e in result.entries for judged in ("float", "engine")}
    assert tiers == {
        ("fgsm", "float", "float"): "white-box",
        ("fgsm", "float", "engine"): "transfer-float",
        ("fgsm", "engine", "engine"): "transfer-twin",
        ("fgsm", "engine", "float"): "transfer-twin",
        ("square:queries=5", "float", "float"): "score",
        ("square:queries=5", "float", "engine"): "transfer-score",
        ("square:queries=5", "engine", "engine"): "score",
        ("square:queries=5", "engine", "float"): "transfer-score",
    }


def test_the_union_is_what_survived_every_entry(subjects, split):
    result = run(subjects, split)
    for name in ("float", "engine"):
        union = result.clean[name] & np.all([entry.robust[name] for entry in result.entries], axis=0)
        np.testing.assert_array_equal(result.robust[name], union)
        for entry in result.entries:
            assert (entry.robust[name] <= result.clean[name]).all()
            assert entry.robust[name][result.clean[name] & ~entry.tried].all()
        assert 0 < result.robust_accuracy(name) < result.clean_accuracy(name)


def test_the_union_is_what_each_subject_says_about_its_stored_images(subjects, split):
    result = run(subjects, split)
    for subject in subjects:
        stored = result.adversarial[subject.name]
        again = result.clean[subject.name] & (subject.predict(stored).argmax(1) == split.labels)
        np.testing.assert_array_equal(result.robust[subject.name], again)
        assert np.abs(stored - split.images).max() <= EPS.eps + 1e-6
    assert result.notes == ()


def test_candidates_for_one_subject_are_tried_on_the_other(subjects, split):
    alone, crossed = run(subjects, split, cross=False), run(subjects, split)
    for name in ("float", "engine"):
        assert crossed.robust[name].sum() <= alone.robust[name].sum()
    assert set(alone.entries[0].robust) == {"float"}
    assert set(crossed.entries[0].robust) == {"float", "engine"}
    broken_by_the_other = crossed.clean["engine"] & ~crossed.entry("fgsm", "float").robust["engine"]
    assert broken_by_the_other.any()


def test_transferred_candidates_go_beyond_the_border_of_their_own_model(subjects, split):
    """Candidates that stop just behind the border of the float model would let the engine look robust."""
    attack = METHODS.build("pgd:steps=40")
    x, y = torch.from_numpy(split.images), torch.from_numpy(split.labels)
    once = attack(subjects[0].model, x, y, EPS, torch.Generator().manual_seed(0)).numpy()
    stopped_early = subjects[1].predict(once).argmax(1) == split.labels
    went_on = run(subjects, split, ["pgd:steps=40"]).entry("pgd:steps=40", "float").robust["engine"]
    assert went_on.sum() < (stopped_early & (subjects[1].predict(split.images).argmax(1) == split.labels)).sum()


def test_images_broken_on_every_subject_leave(subjects, split):
    result = run(subjects, split, ["fgsm", "apgd-ce:steps=10"])
    first = [entry for entry in result.entries if entry.attack == "fgsm"]
    gone = np.all(
        [~result.clean[n] | ~np.all([e.robust[n] for e in first], axis=0) for n in ("float", "engine")], axis=0
    )
    assert gone.any()
    for entry in result.entries[2:]:
        assert not entry.tried[gone].any()
    assert not result.entries[0].tried[~result.clean["float"]].any()


def test_each_subject_is_asked_the_same_clean_images(subjects, split):
    result = run(subjects, split, ["fgsm"])
    assert set(result.queries) == {"float", "engine"}
    assert all((queries >= 2).all() for queries in result.queries.values())
    assert result.samples == 60
    assert result.backward_passes > 0
    assert result.forward_passes > 0
    assert result.seconds > 0
    assert sum(entry.queries for entry in result.entries) + 4 * 60 == sum(int(q.sum()) for q in result.queries.values())


def test_the_same_seed_gives_the_same_result(subjects, split):
    first, second = run(subjects, split), run(subjects, split)
    for name in ("float", "engine"):
        np.testing.assert_array_equal(first.adversarial[name], second.adversarial[name])
        np.testing.assert_array_equal(first.queries[name], second.queries[name])


def test_identical_subjects_come_out_identical(linear, split):
    twins = [Subject(name=name, predict=linear, model=linear.module()) for name in ("float", "engine")]
    result = run(twins, split)
    np.testing.assert_array_equal(result.robust["float"], result.robust["engine"])


def test_a_subject_without_a_model_meets_what_was_made_for_others(subjects, split):
    blind = Subject(name="engine", predict=subjects[1].predict)
    result = run([subjects[0], blind], split, ["fgsm", "square:queries=5"])
    assert [(entry.attack, entry.subject) for entry in result.entries] == [
        ("fgsm", "float"),
        ("square:queries=5", "float"),
        ("square:queries=5", "engine"),
    ]
    assert result.notes == ("engine has no differentiable model: no gradient attack was crafted on it",)
    assert (result.clean["engine"] & ~result.entry("fgsm", "float").robust["engine"]).any()


def test_gradient_attacks_without_any_model_are_refused(subjects, split):
    with pytest.raises(AttackError, match="fgsm need gradients and no subject has a torch model"):
        run([Subject(name="engine", predict=subjects[1].predict)], split, ["fgsm"])


def test_an_engine_that_changes_its_mind_is_reported(linear, split):
    calls = []

    def moody(images):
        calls.append(len(images))
        logits = linear(images)
        return logits[:, ::-1].copy() if len(calls) == 3 else logits  # one batch of the only attack pass

    result = run([Subject(name="engine", predict=moody)], split, ["noise:tries=1"], batch_size=100)
    assert len(result.notes) == 1
    assert "changed its mind about" in result.notes[0]
    again = result.clean["engine"] & (linear(result.adversarial["engine"]).argmax(1) == split.labels)
    np.testing.assert_array_equal(result.robust["engine"], again)


@pytest.mark.parametrize("names", [[], ["a", "a"]])
def test_subjects_need_names_of_their_own(linear, split, names):
    with pytest.raises(OptionError, match="subjects with different names"):
        run([Subject(name=name, predict=linear) for name in names], split)


def test_an_unknown_attack_is_refused_before_anything_runs(subjects, split, linear):
    with pytest.raises(OptionError, match="did you mean 'square'"):
        run(subjects, split, ["sqare"])
    assert not linear.batches


def test_an_entry_that_is_not_there_names_those_that_are(subjects, split):
    with pytest.raises(OptionError, match="there are: fgsm on float, fgsm on engine"):
        run(subjects, split, ["fgsm"]).entry("pgd", "float")


def test_bad_images_are_refused(subjects, split):
    with pytest.raises(DataError):
        run(subjects, Split(name="s", images=split.images * 3, labels=split.labels))


def test_settings_are_recorded(subjects, split):
    result = run(subjects, split, ["fgsm"], seed=4, cross=False)
    assert result.settings == {"attacks": ("fgsm",), "seed": 4, "batch_size": 16, "cross": False}
