"""``rctk inspect --sensitivity`` and the flags of ``rctk export`` that decide about formats."""

from __future__ import annotations

import json

import pytest

FEW = ("--calibration-samples", "64", "--check-samples", "32")


@pytest.fixture
def trained(rctk):
    done = rctk("train", "--arch", "mlp", "--data", "digits:train", "--epochs", "4", "-o", "mlp.pt")
    assert done.code == 0, done.err


@pytest.mark.usefixtures("trained")
def test_formats_and_sensitivity_from_the_command_line(rctk):
    flags = ("--weights", "per-tensor", "--calibrator", "mse", "--calibration-kind", "mix", "--calibration-eps", "0.1")
    done = rctk(
        "export", "mlp.pt", "--calibration", "digits:train", *FEW, *flags, "--max-drop", "0.05", "--target", "cpu"
    )
    assert done.code == 0, done.err
    manifest = json.loads(rctk("inspect", "mlp-int8", "--json").out)
    assert manifest["calibration"]["images"] == "mix"
    assert manifest["calibration"]["calibrator"] == "mse"

    done = rctk("inspect", "mlp-int8", "--sensitivity", "--data", "digits:test", "--samples", "40", "--json")
    assert done.code == 0, done.err
    effects = json.loads(done.out)
    assert effects
    assert all(abs(effect["clean_drop"]) <= 0.2 and effect["divergence"] > 0 for effect in effects)
    shown = rctk("inspect", "mlp-int8", "--sensitivity", "--data", "digits:test", "--samples", "40").out
    assert "robust drop, points" in shown

    assert "for --sensitivity; add it" in rctk("inspect", "mlp-int8", "--data", "digits:test").refusal
    done = rctk("inspect", "mlp-int8", "--sensitivity")
    assert done.code == 2
    assert "--sensitivity needs labelled images; add --data" in done.err


@pytest.mark.usefixtures("trained")
def test_a_margin_outside_its_range_is_refused(rctk):
    done = rctk("export", "mlp.pt", "--calibration", "digits:train", "--max-drop", "1.5")
    assert done.code == 2
    assert "--max-drop is a share in [0, 1)" in done.err


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(("bits", "kept"), [(2, True), (8, False)])
def test_an_export_with_a_margin_says_what_it_cost(rctk, tmp_path, bits, kept):
    flags = ("--max-drop", "0.03", "--step", f"quant.ptq_static8:weight_bits={bits},edge_layers=same")
    done = rctk("export", "mlp.pt", "--calibration", "digits:train", *FEW, *flags, "--target", "cpu", "-o", "out")
    assert done.code == 0, done.err
    told = next(line for line in done.out.splitlines() if line.startswith("margin of 3.00 points: the worst drop is "))
    assert told.endswith("in float") == kept
    assert told in done.err
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (facts,) = (file["facts"] for file in manifest["files"] if file["role"] == "int8")
    reasons = {layer["reason"] for layer in facts["kept_float"]}
    assert ("kept float to keep the margin of accuracy" in reasons) == kept
