"""The audit catches planted masking and stays quiet on honest nets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rctk.audit import CHECKS, audit
from rctk.audit.examined import Scaled
from rctk.audit.result import graded
from rctk.audit.strength import beyond


class Wrapped(nn.Module):
    def __init__(self, module, before=None, after=None) -> None:
        super().__init__()
        self.module, self.before, self.after = module, before, after

    def forward(self, x):
        x = x if self.before is None else self.before(x)
        logits = self.module(x)
        return logits if self.after is None else self.after(logits)


def jittered(x):
    """Shift every image by one pixel in a random direction, anew in each pass, like random resizing and padding."""
    down, right = (int(torch.randint(3, ())) for _ in range(2))
    return F.pad(x, (1, 1, 1, 1))[:, :, down : down + 8, right : right + 8]


def one_hot(logits):
    return F.one_hot(logits.argmax(1), logits.shape[1]).float()


def verdicts(found):
    return {result.check: result.verdict for result in found.results}


PLANTED = {
    "logits x 100": (lambda net: Scaled(net, 100.0), {"strength.scale", "gradients.zero", "strength.unbounded"}),
    "one-hot outputs": (lambda net: Wrapped(net, after=one_hot), {"outputs.logits", "gradients.zero"}),
    "softmax twice": (
        lambda net: Wrapped(net, after=lambda z: z.softmax(1).softmax(1)),
        {"outputs.logits"},
    ),
    "input of 2 levels": (lambda net: Wrapped(net, before=torch.round), {"gradients.zero"}),
    "random shifts": (lambda net: Wrapped(net, before=jittered), {"outputs.repeat"}),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_masking_fails_with_its_reason(name, plain, examine):
    make, reasons = PLANTED[name]
    found = audit(examine(make(plain)))
    assert found.verdict == "fails"
    failed = {check for check, verdict in verdicts(found).items() if verdict == "fails"}
    assert reasons <= failed
    assert all(result.advice for result in found.results if result.verdict == "fails")


def test_defensive_distillation_is_caught_by_the_scale_of_its_logits(distilled, examine):
    found = verdicts(audit(examine(distilled)))
    assert found["strength.scale"] == found["gradients.zero"] == found["blackbox.square"] == "fails"


def test_a_sign_net_without_surrogate_gradient_is_caught(sign_net, examine):
    found = verdicts(audit(examine(sign_net)))
    assert found["gradients.zero"] == found["gradients.ascent"] == found["strength.unbounded"] == "fails"


@pytest.mark.parametrize("name", ["plain", "robust"])
def test_honest_nets_pass_every_check(name, examine, request):
    found = audit(examine(request.getfixturevalue(name)))
    assert found.verdict == "pass", [result for result in found.results if result.verdict != "pass"]
    assert found.samples == 150
    assert len(found.results) == len(CHECKS)


def test_a_rounded_engine_with_its_own_twin_passes(robust, examine):
    parent = examine(robust)
    engine = Wrapped(robust, after=lambda z: (z * 1000).round() / 1000)
    subject = examine(engine, parent=parent, model=robust)
    found = verdicts(audit(subject))
    assert found["fidelity.twin"] == found["gradients.cosine"] == found["blackbox.transfer"] == "pass"
    assert "fails" not in found.values()


def test_a_twin_of_another_model_is_noticed(robust, plain, examine):
    subject = examine(robust, parent=examine(robust), model=Wrapped(plain, before=lambda x: x.flip(3)))
    found = verdicts(audit(subject))
    assert found["fidelity.twin"] == "fails"
    assert found["blackbox.transfer"] == "fails"


def test_coarse_logits_are_suspicious_for_score_attacks(robust, examine):
    subject = examine(Wrapped(robust, after=lambda z: z.round()), model=robust)
    assert verdicts(audit(subject))["outputs.resolution"] == "suspicious"


def test_without_a_differentiable_form_the_white_box_checks_are_named_as_not_run(robust, examine):
    subject = examine(robust)
    subject.model = None
    found = verdicts(audit(subject))
    assert found["gradients.zero"] == found["strength.unbounded"] == "not run"
    assert found["outputs.logits"] == "pass"


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
