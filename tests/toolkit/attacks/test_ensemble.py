from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from rctk.attacks.ensemble import LogitEnsemble
from rctk.evaluation.sources import source, with_ensemble
from rctk.evaluation.suite import Subject, attack_subjects
from rctk.threat import ThreatModel
from rctk_kernels.errors import AttackError, OptionError

EPS = ThreatModel(eps=0.1)


def test_logits_are_averaged_and_a_model_counts_once(digits):
    x = torch.from_numpy(digits.split.images[:5])
    both = LogitEnsemble(digits.plain, digits.robust, digits.plain)
    torch.testing.assert_close(both(x), (digits.plain(x) + digits.robust(x)) / 2)
    assert len(both.models) == 2


def test_one_model_is_no_ensemble(digits):
    with pytest.raises(OptionError, match="two or more different models, got 1"):
        LogitEnsemble(digits.plain, digits.plain)


def test_models_of_other_classes_are_refused(digits):
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(AttackError, match=r"same classes, got logits of shapes \[\(2, 3\), \(2, 10\)\]"):
        LogitEnsemble(digits.plain, other)(torch.zeros(2, 1, 8, 8))


@pytest.fixture
def subjects(digits, predict_with):
    coarse = copy.deepcopy(digits.plain)
    for parameter in coarse.parameters():
        parameter.data = (parameter.data * 8).round() / 8
    return [
        Subject(name="float", predict=predict_with(digits.plain), model=digits.plain),
        Subject(name="engine", predict=predict_with(coarse), model=coarse),
    ]


def test_candidates_of_the_ensemble_are_a_tier_of_their_own(digits, subjects):
    result = attack_subjects(
        with_ensemble(subjects), digits.split, ["pgd:steps=10", "noise:tries=1"], EPS, seed=0, batch_size=50
    )
    entry = result.entry("pgd:steps=10", "ensemble")
    assert (entry.crafted_on, entry.tier("engine"), entry.tier("float")) == ("ensemble",) + ("transfer-ensemble",) * 2
    assert entry.backward_passes > 0
    assert set(result.robust) == set(entry.robust) == {"float", "engine"}  # the ensemble itself is not judged
    assert [e.subject for e in result.entries if e.kind == "query"] == ["float", "engine"]  # nor queried


def test_the_ensemble_breaks_both_models_at_once(digits, subjects):
    both = [s for s in with_ensemble(subjects) if not s.judged]
    judged = [Subject(name=s.name, predict=s.predict) for s in subjects]
    run = {"seed": 0, "batch_size": 50}
    ours = attack_subjects([*judged, *both], digits.split, ["apgd-ce:steps=20"], EPS, **run)
    alone = attack_subjects([*judged, source("one", subjects[0].model)], digits.split, ["apgd-ce:steps=20"], EPS, **run)
    assert ours.robust_accuracy("engine") < ours.clean_accuracy("engine") - 0.2
    assert ours.robust["engine"].sum() <= alone.robust["engine"].sum() + 1
    assert alone.entries[0].tier("engine") == "transfer-one"
    assert np.array_equal(ours.clean["engine"], alone.clean["engine"])


def test_one_differentiable_model_makes_no_ensemble(subjects):
    with pytest.raises(OptionError, match="an ensemble needs two different models, found 1 in float, engine"):
        with_ensemble([subjects[0], Subject(name="engine", predict=subjects[1].predict)])


def test_sources_alone_leave_nothing_to_judge(digits):
    with pytest.raises(OptionError, match="nothing to judge: one only serve"):
        attack_subjects([source("one", digits.plain)], digits.split, ["fgsm"], EPS, seed=0, batch_size=50)
