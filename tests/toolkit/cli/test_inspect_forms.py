"""``rctk inspect`` of int8 files of every form: they hold the layers, parameters and MACs of their float file."""

from __future__ import annotations

import json

import pytest

FEW = ("--calibration-samples", "32", "--check-samples", "32", "--target", "cpu", "-o", "out")


@pytest.fixture
def export(rctk, checkpoint):
    """Export the digits net and return the float graph, the int8 graph and what is shown of both."""

    def call(*flags):
        done = rctk("export", checkpoint, "--calibration", "digits:train", *FEW, *flags)
        assert done.code == 0, done.err
        plain, made = (file["graph"] for file in json.loads(rctk("inspect", "out", "--json").out)["files"])
        return plain, made, rctk("inspect", "out").out

    return call


@pytest.mark.parametrize(
    ("step", "count", "arithmetic", "bits"),
    [
        ("quant.ptq_dynamic8", "2 / 4", "int8 dynamic", 8),
        ("quant.ptq_dynamic8:layers=all", "4 / 4", "int8 dynamic", 8),
        ("quant.weight_only:bits=4", "2 / 4", "int4 weights", 4),
        ("quant.weight_only:bits=2", "2 / 4", "int2 weights", 2),
        ("quant.ptq_static8", "4 / 4", "int8", 8),
        ("quant.ptq_static8:weight_bits=4,activation_bits=4", "4 / 4", "int8", 8),  # in codes of whole bytes
    ],
)
def test_an_int8_file_counts_like_its_float_file(export, step, count, arithmetic, bits):
    plain, made, shown = export("--step", step)
    for figure in ("parameters", "macs"):
        assert made[figure] == plain[figure]
    assert [row["name"] for row in made["layers"]] == [row["name"] for row in plain["layers"]]
    assert (made["layers"][-1]["arithmetic"], made["layers"][-1]["weight_bits"]) == (arithmetic, bits)
    line = next(line for line in shown.splitlines() if line.startswith("int8 cpu"))
    assert count in line
    assert ("layers in float" in shown) == (count == "2 / 4")


def test_zeros_beside_the_network_are_told(export):
    static = export()[2]
    assert "0 is stored with 3 input channels of zeros, which parameters and MACs leave out" in static


def test_a_layer_kept_float_on_request_is_listed_with_its_reason_and_not_warned_of(export):
    _, made, shown = export("--keep-float", "5")
    assert made["findings"] == []
    assert "keeps every rule of target cpu" in shown
    assert next(line for line in shown.splitlines() if "kept float on request" in line).startswith("5 ")


def test_a_layer_that_a_margin_keeps_float_is_not_warned_of(export):
    step = "quant.ptq_static8:weight_bits=2,activation_bits=2,edge_layers=same"
    _, made, shown = export("--step", step, "--max-drop", "0.03")
    kept = [row for row in made["layers"] if row["arithmetic"] == "float"]
    assert kept
    assert {row["reason"] for row in kept} == {"kept float to keep the margin of accuracy"}
    assert "float-layer" not in shown
