import json
from pathlib import Path

import pytest

from rctk.cli.main import run

BUNDLE = Path(__file__).parents[2] / "device" / "data" / "bundle"


@pytest.fixture
def stress(tmp_path, capsys):
    def call(*arguments):
        code = run(
            ["stress", str(BUNDLE), "--data", "digits:test", "--samples", "30", "--out", str(tmp_path), *arguments]
        )
        file = tmp_path / "records.jsonl"
        records = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return code, capsys.readouterr(), records

    return call


def test_float_and_engine_side_by_side(stress):
    code, shown, records = stress(
        "--corruption", "noise", "--corruption", "fog", "--severity", "1,5", "--test", "occlusion"
    )
    assert code == 0
    for word in ("gaussian_noise", "fog", "occlusion", "float: mPC", "mCE", "generated"):
        assert word in shown.out
    assert [record["kind"] for record in records] == ["stress", "stress"]
    assert [record["subject"]["role"] for record in records] == ["float", "int8"]
    (engine,) = (record for record in records if record["subject"]["role"] == "int8")
    assert len(engine["values"]["cells"]) == 4 * 2 + 3
    assert engine["settings"]["severity"] == [1, 5]
    assert engine["settings"]["seed"] == 0


def test_the_report_shows_stress_records(stress, tmp_path, capsys):
    stress("--corruption", "contrast", "--severity", "2")
    assert run(["report", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "Stress that nobody crafted" in shown
    assert "mPC" in (tmp_path / "report.html").read_text()


def test_the_same_seed_gives_the_same_numbers(stress):
    flags = ("--corruption", "shot-noise", "--severity", "3", "--on", "engine", "--seed", "7")
    stress(*flags)
    _, _, records = stress(*flags)
    first, second = records
    assert first["values"]["cells"] == second["values"]["cells"]


def test_tests_alone(stress):
    code, shown, _ = stress("--corruption", "none", "--test", "spatial:tries=3", "--test", "jpeg", "--on", "engine")
    assert code == 0
    assert "quality" not in shown.err
    assert "mPC" not in shown.out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--corruption", "forg"), "did you mean 'fog'"),
        (("--severity", "7"), "1, 2, 3, 4 or 5"),
        (("--corruption", "none"), "name a --corruption or a --test"),
        (("--test", "hail"), "unknown stress test 'hail'"),
        (("--source", "published"), "no published arrays"),
        (("--on", "plan"), "unknown form"),
        (("--seed", "-1"), "seed"),
    ],
)
def test_mistakes_are_named(stress, flags, message):
    code, shown, records = stress(*flags)
    assert code == 2
    assert message in shown.err
    assert records == []
