"""``--grid``, ``--on ensemble`` and attacks on two forms, on a real bundle."""

from __future__ import annotations

import json

import pytest

from rctk.cli.main import run


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    model, out = folder / "digits.pt", folder / "int8"
    train = ["train", "--arch", "digits-cnn:channels=8", "--data", "digits:train", "--samples", "600", "--epochs", "4"]
    assert run([*train, "--records", str(folder), "-o", str(model)]) == 0
    export = ["export", "--int8", str(model), "--calibration", "digits:train", "--target", "cpu"]
    assert run([*export, "--records", str(folder), "-o", str(out)]) == 0
    return out


@pytest.fixture
def attack(bundle, tmp_path, capsys):
    def call(command, *arguments):
        data = ["--data", "digits:test", "--samples", "60", "--out", str(tmp_path)]
        code = run([command, str(bundle), *data, *arguments])
        records = tmp_path / "records.jsonl"
        lines = records.read_text().splitlines() if records.exists() else []
        shown = capsys.readouterr()
        return code, [json.loads(line) for line in lines], shown.out + shown.err

    return call


BOTH = ["--on", "float", "--on", "engine"]


def test_both_grids_side_by_side(attack):
    code, records, text = attack("attack", *BOTH, "--attack", "pgd:steps=5", "--eps", "0.06", "--grid", "both")
    assert code == 0
    assert [r["settings"]["grid"] for r in records] == ["float", "float", "uint8", "uint8"]
    assert [r["subject"]["role"] for r in records] == ["float", "int8"] * 2
    assert [r["subject"]["engine"] for r in records] == ["float", "onnxruntime"] * 2
    robust = [r["values"]["robust_accuracy"] for r in records]
    assert robust[0] <= robust[2]
    assert robust[1] <= robust[3]
    assert "engine (8-bit)" in text
    assert records[3]["values"]["per_attack"][1]["tier"] == "transfer-twin"


def test_the_uint8_grid_alone(attack):
    code, records, _ = attack("attack", "--attack", "square:queries=20", "--eps", "16/255", "--grid", "uint8")
    assert code == 0
    assert [r["settings"]["grid"] for r in records] == ["uint8"]
    code, _, text = attack("attack", "--attack", "fgsm", "--eps", "0.5/255", "--grid", "both")
    assert code == 2
    assert "less than a level of the uint8 grid" in text


def test_the_gate_is_on_eight_bit_pixels_where_both_are_asked_for(attack):
    code, records, text = attack(
        "compare", "--attack", "pgd:steps=3", "--eps", "16/255", "--grid", "both", "--max-drop", "0.05"
    )
    assert code in {0, 1, 3}
    (record,) = records
    assert record["settings"]["grid"] == "uint8"
    float_valued = record["values"]["float_valued"]["robust"]
    assert float_valued["float_accuracy"] <= record["values"]["robust"]["float_accuracy"]
    assert "the gate is on 8-bit pixels" in text


def test_two_forms_are_driven_apart_and_crafted_on_together(attack):
    pairs = ["--attack", "diva:steps=5", "--attack", "border-walk:steps=5", "--attack", "disagreement:queries=20"]
    code, records, text = attack("attack", *BOTH, "--on", "ensemble", *pairs, "--attack", "fgsm", "--eps", "0.1")
    assert code == 0
    tiers = {(each["attack"], each["tier"]) for each in records[1]["values"]["per_attack"]}
    assert ("fgsm", "transfer-ensemble") in tiers
    assert ("diva:steps=5", "differential") in tiers
    assert ("diva:steps=5", "transfer-ensemble") not in tiers
    assert len(records) == 2
    assert "transfer-ensemble" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--attack", "diva"], "such as --on float --on engine"),
        (["--attack", "disagreement"], "such as --on float --on engine"),
        ([*BOTH, "--on", "ensemble", "--attack", "noise"], "--on ensemble is for gradient attacks"),
        (["--on", "ensemble", "--attack", "fgsm"], "an ensemble needs two different models"),
        (["--on", "ensembel"], "did you mean 'ensemble'"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_exit_code_2(attack, arguments, message):
    code, records, text = attack("attack", "--eps", "0.1", *arguments)
    assert code == 2
    assert message in text
    assert not records
