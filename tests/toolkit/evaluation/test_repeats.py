"""Repeats and separate attacks: the union over runs is the worst case per image."""

from __future__ import annotations

import numpy as np
import pytest

from rctk.data.split import Split
from rctk.evaluation.repeats import merged, repeated
from rctk.evaluation.subjects import Subject
from rctk.evaluation.suite import attack_subjects
from rctk.threat import ThreatModel
from rctk_kernels.errors import OptionError


def predict(images):
    """Class 1 from a brightness of one half on."""
    bright = images.mean(axis=(1, 2, 3)) - 0.5
    return np.stack([-bright, bright], axis=1).astype(np.float32)


SPLIT = Split(
    name="grey",
    images=np.linspace(0.3, 0.499, 20, dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 4, 4), np.float32),
    labels=np.zeros(20, dtype=np.int64),
)


def run(seed, attacks=("noise:tries=2",), eps=0.05):
    subjects = [Subject(name="engine", predict=predict)]
    return attack_subjects(subjects, SPLIT, attacks, ThreatModel(eps=eps), seed=seed, batch_size=8)


def test_the_worst_case_of_runs_is_their_union():
    singles = [run(seed) for seed in (5, 6, 7)]
    result, spreads = repeated(run, 5, 3)
    assert np.array_equal(result.robust["engine"], np.all([one.robust["engine"] for one in singles], axis=0))
    assert result.queries["engine"].sum() == sum(one.queries["engine"].sum() for one in singles)
    assert len(result.entries) == 1
    assert result.settings["repeats"] == 3
    assert spreads["engine"].runs == 3
    assert spreads["engine"].worst_case == result.robust["engine"].mean()
    broken = ~result.robust["engine"]
    assert (predict(result.adversarial["engine"][broken]).argmax(axis=1) == 1).all()


def test_one_run_is_itself_and_none_is_refused():
    result, spreads = repeated(run, 5, 1)
    assert spreads == {}
    assert "repeats" not in result.settings
    with pytest.raises(OptionError, match="--repeats must be at least 1"):
        repeated(run, 0, 0)


def test_attacks_run_apart_join_to_the_suite_of_all():
    apart = merged([run(0, ("noise:tries=2",)), run(0, ("square:queries=20",))])
    assert apart.settings["attacks"] == ("noise:tries=2", "square:queries=20")
    assert np.array_equal(apart.robust["engine"], run(0, ("noise:tries=2", "square:queries=20")).robust["engine"])
