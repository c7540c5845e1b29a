from __future__ import annotations

import numpy as np
import pytest

from rctk.data.split import Split
from rctk.evaluation.sources import source
from rctk.evaluation.suite import Subject
from rctk.evaluation.transfer_matrix import transfer_matrix
from rctk.statistics import wilson
from rctk.threat import ThreatModel
from rctk_kernels.errors import AttackError, DataError, OptionError

EPS = ThreatModel(eps=0.05)
RUN = {"seed": 0, "batch_size": 16}


@pytest.fixture
def models(linear):
    other = type(linear)(seed=0)
    other.w = np.round(linear.w * 3) / 3
    unlike = type(linear)(seed=7)
    unlike.w = 0.8 * linear.w + 0.2 * unlike.w
    return {"a": linear, "b": other, "c": unlike}


@pytest.fixture
def subjects(models):
    return [Subject(name=name, predict=model, model=model.module()) for name, model in models.items()]


@pytest.fixture
def split(linear, make_split):
    return make_split(linear, count=60, wrong=6)


def test_every_cell_is_what_its_target_says_about_the_images_of_its_source(models, subjects, split):
    matrix = transfer_matrix(subjects, split, "fgsm", EPS, **RUN)
    assert matrix.sources == matrix.targets == ("a", "b", "c")
    right = np.all([m(split.images).argmax(1) == split.labels for m in models.values()], axis=0)
    np.testing.assert_array_equal(matrix.rows, np.flatnonzero(right))
    x, y = split.images[matrix.rows], split.labels[matrix.rows]
    w = models["a"].w.astype(np.float64)
    logits = x.reshape(len(x), -1) @ w.T
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(x)), y] -= 1
    by_hand = EPS.project(x + EPS.eps * np.sign((p @ w).reshape(x.shape)).astype(np.float32), x)
    for target, model in models.items():
        expected = model(by_hand).argmax(1) == y
        assert (matrix.robust["a"][target] == expected).mean() > 0.97  # a sign of a gradient near 0 may differ
    share = matrix.robust_accuracy("a", "b")
    count = int(matrix.robust["a"]["b"].sum())
    assert share == (count, len(x), *wilson(count, len(x)))


def test_transfer_rates_go_both_ways_and_count_images_that_fool_the_source(subjects, split):
    matrix = transfer_matrix(subjects, split, "pgd:steps=10", EPS, **RUN)
    for source_, target in (("a", "c"), ("c", "a")):
        rate = matrix.transfer(source_, target)
        fooled = ~matrix.robust[source_][source_]
        assert rate.examples == fooled.sum() > 0
        assert rate.fooled == (fooled & ~matrix.robust[source_][target]).sum()
        assert rate.rate == rate.fooled / rate.examples
        assert 0 < rate.efficiency <= 1.2
    values = matrix.as_dict()
    assert len(values["robust"]) == 9
    assert len(values["transfer"]) == 6


def test_candidates_do_not_stop_at_the_border_of_their_source(subjects, split):
    """The first success just behind the border of the source would hardly fool another model."""
    stops = transfer_matrix(subjects, split, "pgd:steps=20,stop_at_success=true", EPS, **RUN)
    goes_on = transfer_matrix(subjects, split, "pgd:steps=20,stop_at_success=false", EPS, **RUN)
    for target in "abc":
        np.testing.assert_array_equal(stops.robust["a"][target], goes_on.robust["a"][target])


def test_a_query_attack_makes_candidates_for_every_judged_subject(subjects, split):
    blind = [Subject(name=s.name, predict=s.predict) for s in subjects]
    matrix = transfer_matrix(blind, split, "square:queries=30", EPS, **RUN)
    assert matrix.sources == ("a", "b", "c")
    assert matrix.forward_passes == 0
    assert (matrix.queries["a"][matrix.rows] >= 1 + 3).all()
    assert matrix.notes == ()


def test_a_subject_without_a_model_is_a_target_only_and_a_source_is_not_judged(models, subjects, split):
    blind = Subject(name="engine", predict=models["b"])
    matrix = transfer_matrix([blind, source("twin", subjects[1].model)], split, "fgsm", EPS, **RUN)
    assert (matrix.sources, matrix.targets) == (("twin",), ("engine",))
    assert matrix.notes == ("engine has no differentiable model: it is a target only",)
    assert matrix.robust_accuracy("twin", "engine").value < 1
    assert matrix.as_dict()["transfer"] == []
    with pytest.raises(OptionError, match="twin only serves to craft on"):
        matrix.transfer("twin", "engine")


def test_the_same_seed_gives_the_same_matrix(subjects, split):
    first, second = (transfer_matrix(subjects, split, "pgd:steps=3", EPS, **RUN) for _ in range(2))
    for source_ in "abc":
        for target in "abc":
            np.testing.assert_array_equal(first.robust[source_][target], second.robust[source_][target])


def test_what_makes_no_matrix_is_refused(linear, subjects, split):
    with pytest.raises(AttackError, match="fgsm needs gradients and none of x has a torch model"):
        transfer_matrix([Subject(name="x", predict=linear)], split, "fgsm", EPS, **RUN)
    with pytest.raises(OptionError, match="subjects with different names"):
        transfer_matrix([subjects[0], subjects[0]], split, "fgsm", EPS, **RUN)
    wrong = Split(name="s", images=split.images, labels=(linear(split.images).argmax(1) + 1) % 3)
    with pytest.raises(DataError, match="s: a get no image right together"):
        transfer_matrix(subjects[:1], wrong, "fgsm", EPS, **RUN)
