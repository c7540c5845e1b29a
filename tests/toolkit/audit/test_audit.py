"""The audit catches planted masking and stays quiet on honest nets."""

from __future__ import annotations

import numpy as np
import pytest

from rctk.audit import CHECKS, CheckResult, audit
from rctk.audit.result import graded
from rctk.audit.strength import BASE, BOTH_PGD, beyond


def verdicts(found):
    return {result.check: result.verdict for result in found.results}


@pytest.mark.parametrize(
    "name", ["logits x 100", "one-hot outputs", "softmax twice", "input of 2 levels", "random shifts"]
)
def test_planted_masking_fails_with_its_reason(name, planted, plain, examine):
    make, reasons = planted.WRAPPED[name]
    found = audit(examine(make(plain)))
    assert found.verdict == "fails"
    assert reasons <= set(found.failed)
    assert all(result.advice for result in found.results if result.verdict == "fails")


@pytest.mark.parametrize("name", ["distillation at 100", "sign net without surrogate"])
def test_nets_trained_to_hide_their_gradients_are_caught(name, planted, examine):
    make, reasons = planted.TRAINED[name]
    assert reasons <= set(audit(examine(make())).failed)


def test_every_planted_case_is_tested(planted):
    assert len(planted.WRAPPED) == 5
    assert len(planted.TRAINED) == 2
    assert len(planted.HONEST) == 3


def test_a_loss_that_is_weak_on_small_logits_is_no_masking(planted, examine):
    subject = examine(planted.barely())
    assert np.abs(subject.logits).max(axis=1).mean() < 1.5
    alone, both = subject.robust(BOTH_PGD[0]), subject.surviving(BOTH_PGD)
    assert (alone & ~both).sum() > 10  # rescaled cross-entropy and Square break them too, and that hides nothing
    assert not (both & ~alone).any()


def test_survivors_of_several_attacks_are_those_that_each_leaves(robust, examine):
    subject, other = examine(robust), examine(robust)
    expected = np.logical_and.reduce([other.robust(attack) for attack in BASE])
    assert subject.surviving(BASE).tolist() == expected.tolist()
    assert 0 < expected.sum() < subject.samples


def test_what_is_left_may_be_changed_by_the_caller(robust, examine):
    subject = examine(robust)
    left = subject.surviving(BOTH_PGD)
    left[:] = False
    assert subject.surviving(BOTH_PGD).any()


@pytest.mark.parametrize("name", ["plain", "adversarially trained", "barely trained"])
def test_honest_nets_pass_every_check(name, planted, examine):
    found = audit(examine(planted.HONEST[name]()))
    assert found.verdict == "pass", [result for result in found.results if result.verdict != "pass"]
    assert found.samples == 150
    assert len(found.results) == len(CHECKS)


def test_a_rounded_engine_with_its_own_twin_passes(planted, robust, examine):
    parent = examine(robust)
    engine = planted.Wrapped(robust, after=lambda z: (z * 1000).round() / 1000)
    subject = examine(engine, parent=parent, model=robust)
    found = verdicts(audit(subject))
    assert found["fidelity.twin"] == found["gradients.cosine"] == found["blackbox.transfer"] == "pass"
    assert "fails" not in found.values()


def test_a_twin_of_another_model_is_noticed(planted, robust, plain, examine):
    subject = examine(robust, parent=examine(robust), model=planted.Wrapped(plain, before=lambda x: x.flip(3)))
    found = verdicts(audit(subject))
    assert found["fidelity.twin"] == "fails"
    assert found["blackbox.transfer"] == "fails"


def test_coarse_logits_are_suspicious_for_score_attacks(planted, robust, examine):
    subject = examine(planted.Wrapped(robust, after=lambda z: z.round()), model=robust)
    assert verdicts(audit(subject))["outputs.resolution"] == "suspicious"


def test_without_a_differentiable_form_the_white_box_checks_are_named_as_not_run(robust, examine):
    subject = examine(robust)
    subject.model = None
    found = verdicts(audit(subject))
    assert found["gradients.zero"] == found["strength.unbounded"] == "not run"
    assert found["outputs.logits"] == "pass"


def test_what_is_kept_is_not_run_again(robust, examine):
    kept = CheckResult(check="any", verdict="suspicious", found="", limits="")
    found = audit(examine(robust), keep=lambda name, run: kept if name.startswith("strength") else run())
    assert found.verdict == "suspicious"
    assert len(found.suspicious) == 6
    assert found.failed == []


def test_an_audit_is_plain_json(robust, examine):
    import json

    found = audit(examine(robust))
    assert json.loads(json.dumps(found.as_dict()))["verdict"] == "pass"


def test_one_image_more_is_chance_two_are_suspicious_three_fail():
    assert [beyond(n, 100, suspicious=0.005, fails=0.01) for n in range(4)] == ["pass", "pass", "suspicious", "fails"]
    assert beyond(3, 1000, suspicious=0.005, fails=0.01) == "pass"


def test_thresholds_belong_to_the_better_side():
    assert [graded(v, suspicious=0.1, fails=0.2) for v in (0.1, 0.2, np.nextafter(0.2, 1))] == [
        "pass",
        "suspicious",
        "fails",
    ]
