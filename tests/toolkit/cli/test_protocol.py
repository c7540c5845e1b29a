"""``--protocol`` of attack and compare: tiers, records, verdicts, and an audit that overrules a gate."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper


def lines(folder):
    return [json.loads(line) for line in (folder / "runs" / "records.jsonl").read_text().splitlines()]


@pytest.fixture
def masked(changed):
    """A float graph whose logits are multiplied by 1000."""

    def louder(model):
        graph = model.graph
        old = graph.output[0].name
        for node in graph.node:
            node.output[:] = [f"{name}_quiet" if name == old else name for name in node.output]
            node.input[:] = [f"{name}_quiet" if name == old else name for name in node.input]
        graph.initializer.append(numpy_helper.from_array(np.float32(1000), "loudness"))
        graph.node.append(helper.make_node("Mul", [f"{old}_quiet", "loudness"], [old]))
        onnx.checker.check_model(model)

    return changed(louder, "masked.onnx")


def test_an_attack_by_protocol_names_tiers_audit_and_verdict(rctk, bundle, digits, tmp_path):
    done = rctk("attack", bundle, "--data", digits, "--samples", 60, "--protocol", "deployed:quick", "--eps", "0.1")
    assert done.code == 0, done.err
    for words in ("transfer-float", "differential, ", "engine wrong, float right", "masking audit of engine: "):
        assert words in done.out
    assert "engine: robust accuracy at most" in done.out
    assert "worst case of 6 tiers" in done.out
    records = lines(tmp_path)
    assert [record["subject"]["role"] for record in records] == ["float", "int8"]  # the parent takes part
    held = records[1]["values"]["protocol"]
    assert held["name"] == records[1]["settings"]["protocol"] == "quick"
    assert len(held["broken_by"]) == 60
    assert held["audit"]["verdict"] in {"pass", "suspicious"}
    assert held["counts"]["survived"] == round(60 * records[1]["values"]["robust_accuracy"])
    assert {entry["tier"] for entry in records[1]["values"]["per_attack"]} >= {"decision", "substitute", "score"}
    assert not (tmp_path / "runs" / "unfinished").exists()
    assert rctk("report", "runs").code == 0
    assert "What broke the images" in (tmp_path / "runs" / "report.html").read_text()


def test_a_protocol_is_repeated_with_other_seeds_and_metrics_stand_beside_it(rctk, bundle, digits, tmp_path):
    flags = ("--data", digits, "--samples", 30, "--protocol", "quick", "--eps", "0.05", "--repeats", 2)
    done = rctk("attack", bundle, *flags, "--metric", "r-inf")
    assert done.code == 0, done.err
    assert "engine: 2 runs: worst case per image" in done.out
    assert "worst case of 6 tiers with 2 seeds" in done.out
    for record in lines(tmp_path):
        values = record["values"]
        assert record["settings"]["repeats"] == values["repeats"]["runs"] == 2
        assert values["repeats"]["worst_case"] == values["robust_accuracy"] <= values["repeats"]["low"]
        assert values["protocol"]["counts"]["survived"] == round(30 * values["robust_accuracy"])
        assert values["protocol"]["audit"]["verdict"] in {"pass", "suspicious"}
        assert 0 <= values["metrics"]["r-inf"]["value"] <= values["clean_accuracy"]
    assert not (tmp_path / "runs" / "unfinished").exists()


def test_a_failing_audit_overrules_the_gate(rctk, masked, digits, tmp_path):
    """A file against itself: every difference is 0, but nobody should believe the number."""
    flags = ("--input", "1x8x8", "--float", masked, "--data", digits, "--samples", 60, "--eps", "0.1")
    done = rctk("compare", masked, *flags, "--max-drop", "0.2", "--protocol", "quick", "--junit", "gate.xml")
    assert done.code == 1, done.err
    assert "robust accuracies are not to be believed, masking audit: float fails" in done.out
    assert "is not to be believed: the masking audit fails" in done.out
    (record,) = lines(tmp_path)
    assert record["values"]["outcome"] == "does not hold"
    assert record["values"]["clean"]["outcome"] == record["values"]["robust"]["outcome"] == "holds"
    assert not record["values"]["protocol"]["engine"]["believed"]
    suite = ET.parse(tmp_path / "gate.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("3", "1")


def test_an_honest_pair_holds_on_the_worst_case_of_two_seeds(rctk, bundle, digits, tmp_path):
    flags = ("--data", digits, "--samples", 50, "--protocol", "quick", "--eps", "0.05", "--repeats", 2)
    done = rctk("compare", bundle, *flags, "--max-drop", "0.3")
    assert done.code == 0, done.out + done.err
    (record,) = lines(tmp_path)
    values = record["values"]
    assert values["disbelief"] == ""
    assert set(values["protocol"]) == {"float", "engine"}
    assert values["robust"]["engine_accuracy"] == values["repeats"]["engine"]["worst_case"]
    assert values["answers"]["engine"]["changed_classes"] == 0  # a protocol looks at the answers first, too


def test_a_bare_file_without_a_parent_says_which_tiers_are_missing(rctk, float_onnx, digits):
    flags = ("--input", "1x8x8", "--data", digits, "--samples", 40, "--eps", "0.1")
    done = rctk("attack", float_onnx, *flags, "--protocol", "quick")
    assert done.code == 0, done.err
    assert "note: tier transfer-float did not run: no float parent" in done.out
    assert "not run: transfer-float, differential, so a complete protocol may find less" in done.out


def test_too_few_images_and_wrong_names_are_one_line(rctk, bundle, digits):
    data = ("--data", digits, "--samples")
    refusal = rctk("attack", bundle, *data, 10, "--protocol", "quick").refusal
    assert "a protocol needs 20 correctly classified images or more, got 10 images" in refusal
    refusal = rctk("compare", bundle, *data, 40, "--protocol", "quik").refusal
    assert "unknown protocol 'quik'; did you mean 'quick'?" in refusal


def test_a_graph_that_cannot_be_differentiated_goes_without_its_twin(rctk, changed, digits):
    def bent(model):
        graph = model.graph
        old = graph.output[0].name
        for node in graph.node:
            node.output[:] = [f"{name}_straight" if name == old else name for name in node.output]
        graph.node.append(helper.make_node("Asinh", [f"{old}_straight"], [old]))  # no operator of OnnxModule

    flags = ("--input", "1x8x8", "--data", digits, "--samples", 40, "--eps", "0.1")
    done = rctk("attack", changed(bent), *flags, "--protocol", "quick")
    assert done.code == 0, done.err
    assert "note: tier transfer-twin did not run: no twin, " in done.out
    assert "Asinh" in done.out
