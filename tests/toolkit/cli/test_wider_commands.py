"""Repeats, single gates, metrics, transfer matrices, differential searches and curves from the command line."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest


@pytest.fixture
def records(tmp_path):
    return lambda: [json.loads(line) for line in (tmp_path / "runs" / "records.jsonl").read_text().splitlines()]


@pytest.fixture
def common(digits):
    return ("--data", digits, "--samples", "60", "--eps", "0.1")


BOTH = ("--on", "float", "--on", "engine")


def test_an_attack_is_repeated_and_its_spread_told(rctk, records, bundle, common):
    done = rctk("attack", bundle, *common, "--attack", "square:queries=10", "--repeats", "3")
    assert done.code == 0
    assert "3 runs: worst case per image" in done.out
    (record,) = records()
    assert record["settings"]["repeats"] == 3
    assert record["values"]["repeats"]["worst_case"] == record["values"]["robust_accuracy"]
    assert record["values"]["median_queries"] > 0


def test_metrics_stand_in_the_record(rctk, records, bundle, common):
    metrics = ("--metric", "r-inf", "--metric", "r2", "--metric", "clever:images=1,batches=3,samples=8")
    done = rctk("attack", bundle, *common, *BOTH, "--attack", "fgsm", *metrics)
    assert done.code == 0
    parent, engine = (record["values"] for record in records())
    assert parent["metrics"]["r-inf"]["value"] == pytest.approx(parent["robust_accuracy"], abs=0.02)
    assert engine["metrics"]["r2"]["value"] > 0
    assert engine["relative_robustness"]["ratio"] > 0
    assert engine["transfer"][0]["source"] == "float"
    assert engine["answers"]["changed_classes"] == 0
    assert engine["answers"]["score_resolution"]["step"] > 0


def test_every_attack_is_gated_by_itself(rctk, records, bundle, common):
    attacks = ("--attack", "fgsm", "--attack", "square:queries=5")
    done = rctk("compare", bundle, *common, *attacks, "--each", "--repeats", "2", "--max-drop", "0.3")
    assert done.code == 0
    assert "every attack by itself, corrected for their number" in done.out
    values = records()[0]["values"]
    assert set(values["each"]) == {"fgsm", "square:queries=5"}
    assert values["repeats"]["engine"]["runs"] == 2


def test_bundles_to_choose_from_are_gated_together(rctk, records, bundle, own_bundle, common, tmp_path):
    files = ("--junit", "gate.xml", "--json", "gate.json", "--summary", "gate.md")
    done = rctk("compare", bundle, "--also", own_bundle, *common, "--attack", "fgsm", "--max-drop", "0.3", *files)
    assert done.code == 0
    assert "2 bundles, any of which may ship, corrected for their number" in done.out
    first, second = (record["values"] for record in records())
    assert first["among"] == second["among"]
    assert set(first["among"]) == {str(bundle), str(own_bundle)}
    suites = ET.parse(tmp_path / "gate.xml").getroot().findall("testsuite")
    assert [suite.get("name") for suite in suites] == [str(bundle), str(own_bundle)]
    entries = json.loads((tmp_path / "gate.json").read_text())["bundles"]
    assert [entry["corrected"] for entry in entries] == list(first["among"].values())
    assert "2 bundles, any of which may ship" in (tmp_path / "gate.md").read_text()


def test_a_bundle_given_twice_is_refused(rctk, bundle, common, tmp_path):
    refusal = rctk("compare", bundle, "--also", bundle.parent / "." / bundle.name, *common).refusal
    assert "give every bundle once" in refusal
    assert not (tmp_path / "runs").exists()


def test_a_file_that_cannot_be_written_hides_no_verdict(rctk, records, bundle, common, tmp_path, monkeypatch):
    def full(*_arguments, **_keywords):
        from rctk_kernels.errors import RecordError

        raise RecordError("cannot write it")

    monkeypatch.setattr("rctk.cli.compare_command.write_outputs", full)
    done = rctk("compare", bundle, *common, "--attack", "fgsm", "--max-drop", "0.3", "--junit", tmp_path / "gate.xml")
    assert "cannot write it" in done.refusal
    assert "holds" in done.out
    assert len(records()) == 1


def test_a_transfer_matrix_over_two_models(rctk, records, bundle, own_bundle, common):
    done = rctk("transfer", bundle, own_bundle, *common, "--attack", "pgd:steps=3")
    assert done.code == 0
    (record,) = records()
    names = [f"{model}/{form}" for model in ("bundle", "own") for form in ("float", "engine")]
    cells = {(cell["source"], cell["target"]): cell["hits"] for cell in record["values"]["robust"]}
    assert set(cells) == {(source, target) for source in names for target in names}
    assert cells["bundle/float", "bundle/float"] == cells["own/float", "own/float"]  # copies of one another
    assert len(record["values"]["transfer"]) == 12


def test_the_ensemble_is_a_source_only(rctk, records, bundle, common):
    done = rctk("transfer", bundle, *common, *BOTH, "--on", "ensemble", "--attack", "fgsm")
    assert done.code == 0
    assert {cell["source"] for cell in records()[0]["values"]["robust"]} == {"float", "engine", "ensemble"}
    assert {cell["target"] for cell in records()[0]["values"]["robust"]} == {"float", "engine"}


def test_a_differential_search_goes_both_ways(rctk, records, bundle, common):
    searches = ("--search", "diva:steps=3", "--search", "disagreement:queries=10")
    done = rctk("differential", bundle, *common, *searches)
    assert done.code == 0
    (record,) = records()
    ways = [(way["fooled"], way["unaware"]) for way in record["values"]["directions"]]
    assert ways == [("engine", "float"), ("float", "engine")]
    assert set(record["values"]["directions"][0]["searches"]) == {"diva:steps=3", "disagreement:queries=10"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("transfer",), "one or more bundle folders"),
        (("transfer", "BUNDLE", "BUNDLE"), "two models are called bundle"),
        (("transfer", "BUNDLE", "--attack", "fgms"), "did you mean 'fgsm'"),
        (("differential", "BUNDLE", "--search", "dvia"), "did you mean 'diva'"),
        (("differential", "BUNDLE", "--replay-every", "0"), "at least 1"),
        (("attack", "BUNDLE", "--repeats", "0"), "--repeats must be at least 1"),
        (("attack", "BUNDLE", "--metric", "clevr"), "did you mean 'clever'"),
        (("attack", "BUNDLE", "--protocol", "quick", "--repeats", "0"), "--repeats must be at least 1"),
        (("attack", "BUNDLE", "--norm", "l2", "--metric", "r-inf"), "say --metric r-inf:eps=8/255"),
        (("compare", "BUNDLE", "--protocol", "quick", "--each"), "name the attacks instead: --attack apgd-ce:steps=25"),
    ],
)
def test_what_makes_no_sense_is_one_line(rctk, tmp_path, bundle, common, arguments, words):
    places = [bundle if argument == "BUNDLE" else argument for argument in arguments]
    assert words in rctk(*places, *common).refusal
    assert not (tmp_path / "runs").exists()


def test_a_curve_over_budgets_falls_and_says_where_the_forms_meet(rctk, records, bundle, digits):
    common = ("--data", digits, "--samples", "60", "--attack", "pgd:steps=3")
    done = rctk("curve", bundle, *common, "--budgets", "16/255,1,4/255")
    assert done.code == 0
    for record in records():
        points = record["values"]["points"]
        assert [point["eps"] for point in points] == pytest.approx([0, 4 / 255, 16 / 255, 1])
        heights = [point["accuracy"] for point in points]
        assert heights == sorted(heights, reverse=True)
        assert all(point["low"] <= point["accuracy"] <= point["high"] for point in points)
        assert record["values"]["critical_strength"]["eps"] is not None
    assert "critical strength" in done.out
    assert "60 images tell a share to about 13 points" in done.out


def test_a_curve_over_queries_starts_clean_and_ends_robust(rctk, records, bundle, common):
    done = rctk("curve", bundle, *common, "--over", "queries", "--attack", "square:queries=30", "--on", "engine")
    assert done.code == 0
    assert "median queries of the images that broke" in done.out
    (record,) = records()
    points = record["values"]["points"]
    assert (points[0]["queries"], points[-1]["queries"]) == (0, 30)
    assert points[0]["accuracy"] > points[-1]["accuracy"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--over", "queries"), "one query attack such as --attack square"),
        (("--budgets", "2,4"), "write 2/255?"),
        (("--budgets", ""), "at least one budget"),
        (("--budgets", "0"), "eps must be a positive number"),
        (("--on", "ensemble"), "unknown form 'ensemble'"),
    ],
)
def test_a_curve_that_makes_no_sense_is_one_line(rctk, tmp_path, bundle, digits, arguments, words):
    assert words in rctk("curve", bundle, "--data", digits, "--samples", "20", *arguments).refusal
    assert not (tmp_path / "runs").exists()
