"""Metrics by name: each against what the plain function says about the same images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rctk.data.split import Split
from rctk.evaluation.module_predict import ModulePredict
from rctk.evaluation.subjects import Subject
from rctk.evaluation.suite import attack_subjects
from rctk.metrics.measured import METRICS
from rctk.metrics.of_suite import suite_metrics
from rctk.threat import ThreatModel
from rctk_kernels.errors import AttackError, OptionError


@pytest.fixture(scope="module")
def linear():
    """Two classes of images of two pixels; the border is x0 + x1 = 1, class 1 above."""
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
        layer.bias.copy_(torch.tensor([1.0, -1.0]))
    model = nn.Sequential(nn.Flatten(), layer).eval()
    return Subject(name="float", predict=ModulePredict(model), model=model)


IMAGES = np.float32([[0.4, 0.4], [0.2, 0.2], [0.45, 0.45], [0.7, 0.7]]).reshape(4, 1, 1, 2)
SPLIT = Split(name="points", images=IMAGES, labels=np.array([0, 0, 0, 0]))
DISTANCES = np.float64([0.2, 0.6, 0.1]) / np.sqrt(2)
"""From x0 + x1 = 1; the last image is misclassified as it is."""


def measure(text, subject, eps=0.06):
    return METRICS.build(text)(subject, SPLIT, ThreatModel(eps=eps), seed=0, batch_size=4)


def test_r_inf_is_the_share_that_withstands_one_step(linear):
    found = measure("r-inf", linear)
    assert found["value"] == 0.5  # a step of 0.06 in both pixels moves the sum by 0.12: the third image falls
    assert (found["eps"], found["samples"]) == (0.06, 4)


def test_r_inf_of_a_budget_in_another_norm_needs_a_size_of_its_own(linear):
    budget = ThreatModel(norm="l2", eps=3.0)
    with pytest.raises(OptionError, match="r-inf:eps=8/255"):
        METRICS.build("r-inf")(linear, SPLIT, budget, seed=0, batch_size=4)
    found = METRICS.build("r-inf:eps=0.06")(linear, SPLIT, budget, seed=0, batch_size=4)
    assert found["value"] == 0.5
    with pytest.raises(OptionError, match="r-inf:eps is a budget"):
        METRICS.build("r-inf:eps=8")


def test_r2_is_the_mean_distance_of_the_right_ones(linear):
    found = measure("r2", linear)
    assert found["value"] == pytest.approx(1.02 * DISTANCES.sum() / 4, rel=1e-2)  # DeepFool's overshoot
    assert found["failures"] == 0


def test_the_median_distance_counts_misclassified_images_as_zero(linear):
    found = measure("distance:attack=deepfool", linear)
    assert found["value"] == pytest.approx(1.02 * 0.2 / np.sqrt(2), rel=1e-2)  # the upper of 0.1 and 0.2
    assert found["success_rate"] == 1
    assert found["low"] <= found["value"] <= found["high"]


def test_clever_of_a_linear_model_is_its_distance(linear):
    found = measure("clever:images=3,batches=4,samples=4,radius=1", linear)
    assert found["scores"] == pytest.approx(DISTANCES.tolist(), rel=1e-3)
    assert found["measured_on"] == "float"


def test_what_has_no_gradient_is_refused(linear):
    blind = Subject(name="engine", predict=linear.predict)
    for text in ("r2", "r-inf", "clever"):
        with pytest.raises(AttackError, match=r"no torch model"):
            measure(text, blind)
    for text in ("r2", "r-inf", "clever", "distance", "distance:attack=deepfool"):
        with pytest.raises(AttackError, match=r"needs gradients and engine has no torch model; .*hopskipjump"):
            METRICS.build(text).check(blind, ThreatModel())
    METRICS.build("distance:attack=hopskipjump").check(blind, ThreatModel())
    with pytest.raises(AttackError, match="does not look for the nearest image"):
        METRICS.build("distance:attack=pgd").check(linear, ThreatModel())
    with pytest.raises(OptionError, match="clever:images"):
        METRICS.build("clever:images=0")
    with pytest.raises(OptionError, match="r2:steps"):
        METRICS.build("r2:steps=0")


def test_a_suite_tells_sizes_relative_robustness_and_transfer(linear):
    weaker = Subject(name="engine", predict=lambda x: linear.predict(x) + np.float32([-0.3, 0]), model=linear.model)
    result = attack_subjects([linear, weaker], SPLIT, ["fgsm"], ThreatModel(eps=0.11), seed=0, batch_size=4)
    parent, engine = (suite_metrics(result, SPLIT, name) for name in ("float", "engine"))
    assert parent["success"] == pytest.approx(2 / 3)
    assert parent["median_linf"] == pytest.approx(0.11, abs=1e-6)
    assert parent["mean_l2"] == pytest.approx(0.11 * np.sqrt(2), abs=1e-6)
    assert "relative_robustness" not in parent
    assert engine["relative_robustness"]["ratio"] == 1.0
    (rate,) = (one for one in engine["transfer"] if one["source"] == "float")
    assert (rate["attack"], rate["examples"], rate["fooled"]) == (
        "fgsm",
        1,
        1,
    )  # the engine gets the third wrong as it is
