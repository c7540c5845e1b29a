from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from torch import nn

from rctk.attacks import ATTACKS
from rctk.data import read_split
from rctk.evaluation.differential import SEARCHES
from rctk.evaluation.journal import Journal
from rctk.evaluation.protocol import LETTERS, PROTOCOLS, TIERS, Protocol, protocol_named
from rctk.evaluation.protocol_repeats import repeated_protocol
from rctk.evaluation.protocol_run import run_protocol
from rctk.evaluation.rounds import evidence_of
from rctk.evaluation.subjects import Subject
from rctk.threat import ThreatModel
from rctk_kernels.errors import DataError, OptionError

THREAT = ThreatModel(eps=0.06)
TINY = Protocol(
    name="tiny",
    gradient=("apgd-ce:steps=4", "pgd:steps=3"),
    substitute=("substitute:rounds=1,epochs=1,steps=3",),
    score=("square:queries=15",),
    decision=("rays:queries=15", "surfree:queries=15"),
    differential=("border-walk:steps=6", "disagreement:queries=8"),
    audit_samples=20,
)


class PowerError(Exception):
    """The power went off."""


@pytest.fixture(scope="module")
def split():
    return read_split("digits:test", samples=60)


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
    train = read_split("digits:train")
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(torch.from_numpy(train.images)), torch.from_numpy(train.labels)).backward()
        optimizer.step()
    return net.eval()


@pytest.fixture(scope="module")
def coarse(module):
    """The deployed form: weights on a grid of 1/4."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
    net.load_state_dict({name: (4 * value).round() / 4 for name, value in module.state_dict().items()})
    return net.eval()


def predict_with(module, calls=10**9):
    left = iter(range(calls))

    def predict(images):
        if next(left, None) is None:
            raise PowerError
        with torch.no_grad():
            return module(torch.from_numpy(images)).numpy()

    return predict


@pytest.fixture
def forms(module, coarse):
    return [
        Subject(name="float", predict=predict_with(module), model=module),
        Subject(name="engine", predict=predict_with(coarse), model=coarse),
    ]


def run(subjects, split, protocol=TINY, threat=THREAT, **settings):
    return run_protocol(subjects, split, protocol, threat, **({"seed": 1, "batch_size": 16} | settings))


@pytest.fixture(scope="module")
def found(module, coarse, split):
    subjects = [
        Subject(name="engine", predict=predict_with(coarse), model=coarse),
        Subject(name="float", predict=predict_with(module), model=module),
    ]
    return run(subjects, split)


def test_seeds_together_break_what_any_of_them_breaks_and_are_audited_once(forms, split):
    asked = []

    def seeded(seed, audited):
        asked.append((seed, audited))
        small = dataclasses.replace(TINY, substitute=(), differential=())
        return run(forms, split, small, seed=seed, audited=audited)

    both, spreads = repeated_protocol(seeded, 4, 2)
    assert asked == [(4, True), (5, False)]
    single = [seeded(seed, False) for seed in (4, 5)]
    assert single[0].audits == ()
    assert "not audited for masked gradients: it was not asked for" in single[0].verdict("engine")
    assert [audit.name for audit in both.audits] == ["float", "engine"]
    for name in ("float", "engine"):
        alive = [one.suite.robust[name] for one in single]
        assert both.suite.robust[name].tolist() == (alive[0] & alive[1]).tolist()
        assert spreads[name].low == min(one.mean() for one in alive)
        assert both.tiers(name)[-1].left.hits == (alive[0] & alive[1]).sum()
        first = {tier: index for index, tier in enumerate([*TIERS, "survived", "misclassified"])}
        earlier = np.minimum(*([first[tier] for tier in one.broken_by(name)] for one in single))
        assert [first[tier] for tier in both.broken_by(name)] == earlier.tolist()
    assert set(both.not_run) == {"substitute", "differential"}
    assert "worst case of 4 tiers with 2 seeds" in both.verdict("engine")


def test_every_image_has_one_outcome_and_tiers_only_ever_lower_the_number(found, split):
    assert found.not_run == {}
    for name in ("float", "engine"):
        rows, outcome = found.tiers(name), found.broken_by(name)
        assert [row.tier for row in rows] == list(TIERS)
        assert all(row.ran for row in rows)
        left = [int(found.suite.clean[name].sum()), *(row.left.hits for row in rows)]
        assert [a - b for a, b in itertools.pairwise(left)] == [row.broken for row in rows]
        assert left[-1] == found.suite.robust[name].sum() == (outcome == "survived").sum()
        assert all(row.left.low <= row.left.value <= row.left.high for row in rows)
        assert len(outcome) == len(split)


def test_the_headline_is_what_each_form_says_about_its_stored_images(found, split, module, coarse):
    for name, net in (("float", module), ("engine", coarse)):
        stored = found.suite.adversarial[name]
        again = predict_with(net)(stored).argmax(1) == split.labels
        np.testing.assert_array_equal(found.suite.robust[name], found.suite.clean[name] & again)
        assert np.abs(stored - split.images).max() <= THREAT.eps + 1e-6


def test_the_float_tier_is_over_before_the_twin_tier_begins(found):
    tiers = [(entry.evidence, entry.crafted_on) for entry in found.suite.entries]
    assert tiers[:4] == [("gradient", "float")] * 2 + [("gradient", "twin")] * 2
    assert [evidence for evidence, _ in tiers[4:]] == [
        *["substitute"] * 2,
        *["score"] * 2,
        *["decision"] * 2,
        *["differential"] * 2,
    ]


def test_what_the_differential_tier_alone_breaks_counts(forms, split):
    nothing = dataclasses.replace(TINY, gradient=(), substitute=(), score=(), decision=())
    found = run(forms, split, nothing)
    assert list(found.not_run) == [tier for tier in TIERS if tier != "differential"]
    for direction in found.differential.directions:
        rows = found.differential.rows
        assert direction.union.fooled.any()
        assert not found.suite.robust[direction.fooled][rows[direction.union.fooled]].any()
        assert set(found.broken_by(direction.fooled)[rows[direction.union.fooled]]) == {"differential"}
    assert (found.suite.queries["engine"] > found.differential.queries["engine"]).all()


def test_rates_of_the_differential_tier_are_over_all_images_that_both_get_right(found):
    both = found.suite.clean["float"] & found.suite.clean["engine"]
    np.testing.assert_array_equal(found.differential.rows, np.flatnonzero(both))
    values = found.as_dict("engine")["differential"]["directions"]
    assert [(way["fooled"], way["unaware"]) for way in values] == [("engine", "float"), ("float", "engine")]
    assert values[0]["union"]["success"]["samples"] == both.sum()


def test_without_a_float_parent_its_tiers_are_named(forms, split):
    found = run(forms[1:], split)
    assert found.not_run == {"transfer-float": "no float parent", "differential": "no float parent"}
    assert "not run: transfer-float, differential, so a complete protocol may find less" in found.verdict("engine")
    assert found.suite.robust["engine"].sum() < found.suite.clean["engine"].sum()


def test_without_a_twin_its_tier_is_named_and_a_search_without_gradients_remains(forms, split):
    blind = [forms[0], dataclasses.replace(forms[1], model=None)]
    found = run(blind, split)
    assert found.not_run == {"transfer-twin": "no twin of the deployed file"}
    assert list(found.differential.directions[0].searches) == ["disagreement:queries=8"]
    assert {r.verdict for r in found.audit("engine").results if r.check.startswith("gradients")} == {"not run"}


def test_an_engine_alone_meets_queries_and_its_imitation(forms, split):
    found = run([dataclasses.replace(forms[1], model=None)], split)
    assert list(found.not_run) == ["transfer-float", "transfer-twin", "differential"]
    assert [entry.evidence for entry in found.suite.entries] == ["substitute", "score", "decision"]


def test_in_l2_another_label_attack_runs_and_in_l1_the_rest_is_named(forms, split):
    found = run(forms, split, threat=ThreatModel(norm="l2", eps=0.5))
    assert "surfree:queries=15" in {entry.attack for entry in found.suite.entries}
    assert found.not_run == {}
    found = run(forms, split, dataclasses.replace(TINY, gradient=("apgd-ce:steps=4",)), ThreatModel(norm="l1", eps=2))
    assert {"decision", "differential"} <= set(found.not_run)
    assert found.audits == ()
    assert "not audited for masked gradients: its attacks run in linf and l2" in found.verdict("engine")


def test_fewer_than_twenty_correct_images_are_refused(forms, split):
    wrong = dataclasses.replace(split, labels=np.where(np.arange(60) < 45, (split.labels + 1) % 10, split.labels))
    with pytest.raises(DataError, match=r"float gets \d+ of 60 images right, a protocol needs 20 or more"):
        run(forms, wrong)


def test_the_audit_overrules_a_flattering_number(forms, split, module):
    """Logits x 1000: the cross-entropy has no gradient left, and attacks on it see nothing."""

    class Loud(nn.Module):
        def forward(self, x):
            return 1000 * module(x)

    loud = Loud().eval()
    found = run([forms[0], Subject(name="engine", predict=predict_with(loud), model=loud)], split)
    assert found.believed("float")
    assert not found.believed("engine")
    assert "is not to be believed: the masking audit fails gradients.zero" in found.verdict("engine")
    assert "engine fails gradients.zero" in found.disbelief()
    assert not found.as_dict("engine")["believed"]


def test_an_honest_pair_is_believed_in_words(found):
    assert found.believed("engine")
    assert found.disbelief() == ""
    assert "worst case of 6 tiers" in found.verdict("engine")
    assert "masking audit: no check fails" in found.verdict("engine")
    assert [audit.name for audit in found.audits] == ["float", "engine"]
    assert found.audit("engine").samples == 20


def test_a_record_holds_the_fate_of_every_image(found):
    values = json.loads(json.dumps(found.as_dict("engine")))
    assert [LETTERS[letter] for letter in values["broken_by"]] == found.broken_by("engine").tolist()
    assert sum(values["counts"].values()) == values["samples"] == 60
    assert [tier["tier"] for tier in values["tiers"]] == list(TIERS)
    assert sum(tier["queries"] for tier in values["tiers"]) == sum(entry.queries for entry in found.suite.entries)


def same(first, second):
    for name in ("float", "engine"):
        np.testing.assert_array_equal(first.suite.adversarial[name], second.suite.adversarial[name])
        np.testing.assert_array_equal(first.suite.queries[name], second.suite.queries[name])
        np.testing.assert_array_equal(first.broken_by(name), second.broken_by(name))
    one, other = (result.differential.as_dict() | {"seconds": 0} for result in (first, second))
    assert one == other
    assert first.audits == second.audits
    for a, b in zip(first.suite.entries, second.suite.entries, strict=True):
        assert (a.queries, a.forward_passes, a.backward_passes) == (b.queries, b.forward_passes, b.backward_passes)


@pytest.mark.parametrize("calls", [9, 100, 250, 400])
def test_a_protocol_that_was_stopped_ends_with_the_same_result(forms, split, coarse, found, tmp_path, calls):
    stopped = [forms[0], dataclasses.replace(forms[1], predict=predict_with(coarse, calls))]
    with pytest.raises(PowerError):
        run(stopped, split, journal=Journal(tmp_path, {}))
    again = Journal(tmp_path, {})
    same(run(forms, split, journal=again), found)
    assert again.found > 0 or calls == 9
    third = Journal(tmp_path, {})
    same(run(forms, split, journal=third), found)
    assert third.found > again.found or calls == 400


@pytest.mark.parametrize("name", PROTOCOLS)
def test_presets_hold_every_tier_with_a_budget_that_grows(name):
    preset = PROTOCOLS[name]
    evidence = [evidence_of(ATTACKS.build(text)) for text in preset.attacks]
    assert set(evidence) == {"gradient", "substitute", "score", "decision"}
    assert all(SEARCHES.build(text) for text in preset.differential)
    for norm in ("linf", "l2"):
        there = {evidence_of(ATTACKS.build(text)) for text in preset.attacks_in(norm)}
        assert there == set(evidence)


def test_deployed_is_the_standard_preset_and_a_wrong_name_is_refused():
    assert protocol_named("deployed") is PROTOCOLS["standard"]
    assert protocol_named("deployed:quick") is protocol_named("quick") is PROTOCOLS["quick"]
    with pytest.raises(OptionError, match="did you mean 'standard'"):
        protocol_named("standart")
    with pytest.raises(OptionError, match="unknown protocol 'deployed:fast'"):
        protocol_named("deployed:fast")
