"""Attacks on the difference of two models: DIVA, border walk, disagreement."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from rctk.attacks import ATTACKS
from rctk.attacks.beside import Beside
from rctk.attacks.disagreement import PredictBeside
from rctk.evaluation.judge import evaluate
from rctk.evaluation.pairs import beside_each_other, beside_float
from rctk.evaluation.sources import with_ensemble
from rctk.evaluation.suite import Subject, attack_subjects
from rctk.threat import ThreatModel
from rctk_kernels.errors import AttackError, OptionError

QUICK = {"border-walk": "border-walk:steps=20", "diva": "diva:steps=20", "disagreement": "disagreement:queries=150"}
THREATS = {"linf": ThreatModel(eps=0.1), "l2": ThreatModel(norm="l2", eps=0.8)}


def coarse(model):
    """The same net with weights of four bits, its own twin."""
    net = copy.deepcopy(model)
    for parameter in net.parameters():
        if parameter.ndim > 1:
            scale = parameter.detach().abs().flatten(1).amax(1).view(-1, *[1] * (parameter.ndim - 1)) / 7
            parameter.data = (parameter.data / scale).round() * scale
    return net


@pytest.fixture(scope="module")
def pair(digits):
    return Beside(coarse(digits.plain), digits.plain)


@pytest.fixture
def common(digits, predict_with, pair):
    """Images that both nets get right."""
    right = [predict_with(m)(digits.split.images).argmax(1) == digits.split.labels for m in (pair, pair.reference)]
    return digits.split.take(np.flatnonzero(np.all(right, axis=0)))


def propose(text, pair, split, threat, predict_with, seed=0):
    attack = ATTACKS.build(text)
    if attack.kind == "query":
        predict = PredictBeside(predict_with(pair.model), predict_with(pair.reference))
        return attack(predict, split.images, split.labels, threat, np.random.default_rng(seed))
    x, y = torch.from_numpy(split.images), torch.from_numpy(split.labels)
    return attack(pair, x, y, threat, torch.Generator().manual_seed(seed)).numpy()


def evasive(raw, pair, split, predict_with):
    wrong = predict_with(pair.model)(raw).argmax(1) != split.labels
    return wrong & (predict_with(pair.reference)(raw).argmax(1) == split.labels)


@pytest.mark.parametrize("norm", THREATS)
@pytest.mark.parametrize("name", QUICK)
def test_candidates_lie_in_the_budget_and_repeat_with_the_seed(pair, common, predict_with, name, norm):
    before = common.images.copy()
    first, second = (propose(QUICK[name], pair, common, THREATS[norm], predict_with) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(common.images, before)
    delta = (first - before).reshape(len(first), -1)
    size = np.abs(delta).max(axis=1) if norm == "linf" else np.linalg.norm(delta, axis=1)
    assert size.max() <= THREATS[norm].eps + 1e-6
    assert (first.min(), first.max()) >= (0, 0)
    assert first.max() <= 1


@pytest.mark.parametrize("norm", THREATS)
@pytest.mark.parametrize("name", QUICK)
def test_they_find_images_that_one_model_gets_wrong_and_the_other_right(pair, common, predict_with, name, norm):
    raw = propose(QUICK[name], pair, common, THREATS[norm], predict_with)
    assert evasive(raw, pair, common, predict_with).mean() > 0.05
    assert not evasive(common.images, pair, common, predict_with).any()


def test_walking_along_the_border_finds_more_than_climbing_a_difference_of_chances(digits, predict_with):
    """Two nets that differ as little as eight-bit weights do: the difference is largest where both agree again."""
    net = copy.deepcopy(digits.robust)
    for parameter in net.parameters():
        parameter.data = (parameter.data * 128).round() / 128
    pair, threat = Beside(net, digits.robust), ThreatModel(eps=0.2)
    right = [predict_with(m)(digits.split.images).argmax(1) == digits.split.labels for m in (net, digits.robust)]
    split = digits.split.take(np.flatnonzero(np.all(right, axis=0)))
    found = {
        text: evasive(propose(text, pair, split, threat, predict_with), pair, split, predict_with).sum()
        for text in ("diva:steps=50", "border-walk:steps=50", "disagreement:queries=300")
    }
    assert found["border-walk:steps=50"] >= 3 * found["diva:steps=50"]
    assert found["disagreement:queries=300"] >= 3 * found["diva:steps=50"]


@pytest.mark.parametrize("name", ["border-walk", "diva"])
def test_gradients_of_both_models_by_hand(name):
    """Two linear models whose logits are (a.x, 0) and (b.x, 0)."""
    models = []
    for weights in ([1.0, -1.0], [2.0, 1.0]):
        net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
        net[1].weight.data = torch.tensor([weights, [0.0, 0.0]])
        models.append(net)
    seen = ATTACKS.build(name).see(*models, torch.tensor([[[[0.5, 0.25]]]]), torch.tensor([0]))
    if name == "border-walk":  # margins 0.25 in the model, 1.25 in the reference: the smaller one is -0.25
        assert seen.score.item() == pytest.approx(-0.25)
        assert seen.gradient.flatten().tolist() == pytest.approx([-1, 1])
    else:
        model, reference = (1 / (1 + np.exp(-z)) for z in (0.25, 1.25))
        assert seen.score.item() == pytest.approx(reference - model)
        slope = reference * (1 - reference) * np.array([2, 1]) - model * (1 - model) * np.array([1, -1])
        assert seen.gradient.flatten().tolist() == pytest.approx(slope, rel=1e-5)
    assert not seen.evasive.item()


def test_a_very_confident_model_still_has_a_gradient(digits):
    class Confident(nn.Module):
        def forward(self, x):
            return digits.plain(x) * 20

    x, y = torch.from_numpy(digits.split.images), torch.from_numpy(digits.split.labels)
    seen = ATTACKS.build("diva").see(Confident(), digits.robust, x, y)
    assert (seen.gradient != 0).flatten(1).any(dim=1).all()


@pytest.mark.parametrize("name", QUICK)
def test_passes_are_counted_for_both_models(pair, common, predict_with, name):
    attack = ATTACKS.build(QUICK[name])
    predict = PredictBeside(predict_with(pair.model), predict_with(pair.reference))
    result = evaluate(predict, common, attack, THREATS["linf"], seed=0, model=pair)
    assert (result.clean & ~result.robust).any()
    if attack.kind == "query":
        assert 0 < (result.queries - 2).max() <= attack.passes
        assert not result.notes
    else:
        looks = len(common)  # where an attack stopped, the judge classifies once more
        twice = 2 * len(common) * attack.passes  # and goes on where the model under test is not fooled
        assert len(common) * attack.passes / 2 < result.forward_passes + result.backward_passes <= twice + looks


@pytest.mark.parametrize("name", QUICK)
def test_one_model_is_refused_in_one_sentence(digits, predict_with, name):
    with pytest.raises(AttackError, match=r"two models.*such as --on float --on engine"):
        evaluate(
            predict_with(digits.plain),
            digits.split,
            ATTACKS.build(QUICK[name]),
            THREATS["linf"],
            seed=0,
            model=digits.plain,
        )


@pytest.mark.parametrize("name", ["border-walk", "diva"])
@pytest.mark.parametrize("blind", ["model", "reference"])
def test_a_model_without_gradients_is_refused_whichever_it_is(digits, predict_with, common, name, blind):
    class ForwardOnly(nn.Module):
        def forward(self, x):
            return digits.plain(x.detach())

    pair = Beside(**({"model": digits.plain, "reference": digits.plain} | {blind: ForwardOnly()}))
    with pytest.raises(AttackError, match="gives no gradient of its logits"):
        propose(QUICK[name], pair, common, THREATS["linf"], predict_with)


@pytest.mark.parametrize("name", QUICK)
def test_no_images_are_no_error(pair, common, predict_with, name):
    nothing = common.take(np.empty(0, dtype=np.int64))
    assert propose(QUICK[name], pair, nothing, THREATS["linf"], predict_with).shape == (0, 1, 8, 8)


def test_a_suite_runs_them_both_ways_and_all_other_attacks_as_before(digits, predict_with, pair):
    forms = beside_each_other(
        Subject(name="float", predict=predict_with(pair.reference), model=pair.reference),
        Subject(name="engine", predict=predict_with(pair.model), model=pair.model),
    )
    run = {"threat": THREATS["linf"], "seed": 0, "batch_size": 50}
    result = attack_subjects(forms, digits.split, list(QUICK.values()), **run)
    tiers = {e.subject: e.tier("engine") for e in result.entries if e.kind == "gradient"}
    assert tiers == {"float": "transfer-differential", "engine": "differential"}
    assert len(result.entries) == 6
    unseen = ~result.entry("border-walk:steps=20", "engine").robust["engine"]
    assert (result.clean["engine"] & unseen).any()
    models = {"float": pair.reference, "engine": pair.model}
    plain = [Subject(name=form.name, predict=form.predict, model=models[form.name]) for form in forms]
    with_others = attack_subjects(forms, digits.split, ["pgd:steps=5"], **run)
    alone = attack_subjects(plain, digits.split, ["pgd:steps=5"], **run)
    for name in ("float", "engine"):
        np.testing.assert_array_equal(with_others.adversarial[name], alone.adversarial[name])


def test_the_float_model_stands_beside_every_form_that_is_judged(digits, predict_with, pair):
    models = {"float": pair.reference, "twin": pair.model, "engine": digits.robust}
    forms = [Subject(name=name, predict=predict_with(model), model=model) for name, model in models.items()]
    paired = {form.name: form for form in beside_float(with_ensemble(forms))}
    assert paired["float"].model.reference is digits.robust  # the last one: the engine
    assert paired["twin"].model.reference is paired["engine"].model.reference is pair.reference
    assert not hasattr(paired["ensemble"].model, "reference")
    result = attack_subjects(
        list(paired.values()), digits.split.take(np.arange(20)), ["diva:steps=2"], THREATS["linf"], seed=0, batch_size=9
    )
    assert [entry.subject for entry in result.entries] == ["float", "twin", "engine"]
    assert beside_float(forms[1:]) == forms[1:]
    assert beside_float(forms[:1]) == forms[:1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("diva:steps=0", "steps must be at least 1"),
        ("diva:step_size=0", "positive share"),
        ("diva:balance=0", "balance must be positive"),
        ("border-walk:steps=0", "steps must be at least 1"),
        ("border-walk:step_size=-1", "positive share"),
        ("disagreement:queries=0", "queries must be at least 1"),
        ("disagreement:p_init=0", "share of the image"),
    ],
)
def test_wrong_settings_are_refused(text, message):
    with pytest.raises(OptionError, match=message):
        ATTACKS.build(text)
