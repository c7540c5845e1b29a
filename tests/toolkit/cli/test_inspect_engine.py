"""``rctk inspect --engine openvino``: how the runtime runs the layers of a file."""

from __future__ import annotations

import json

import pytest
import torch

from rctk.cli.runtime_table import unrounded_sums
from rctk.data.read import read_split
from rctk.exporting.export import ExportSettings, quantize
from rctk.progress import Silent
from rctk_export.bundle import read_bundle
from rctk_export.capture import capture
from rctk_export.input_spec import InputSpec
from rctk_export.onnx_files import save_onnx

pytest.importorskip("openvino")
DIGITS = InputSpec(channels=1, height=8, width=8)


def test_an_int8_file_of_a_bundle_runs_in_int8(rctk, bundle):
    done = rctk("inspect", bundle, "--engine", "openvino", "--target", "cpu")
    assert done.code == 0, done.err
    assert "int8-cpu.onnx in OpenVINO" in done.out
    assert "layers in int8 (100.0%)" in done.out
    (found,) = json.loads(rctk("inspect", bundle, "--engine", "openvino", "--target", "cpu", "--json").out)
    assert found["int8_share"] == 1.0
    assert [row["name"] for row in found["layers"]] == read_bundle(bundle).file("int8", "cpu").facts["int8_layers"]
    assert {row["precision"] for row in found["layers"]} <= {"u8", "i8"}


def test_without_a_target_all_int8_files_of_a_bundle_are_shown(rctk, bundle):
    found = json.loads(rctk("inspect", bundle, "--engine", "openvino", "--json").out)
    assert [each["file"] for each in found] == ["int8-cpu.onnx"]


def test_every_layer_of_a_float_file_is_in_float_and_listed_on_request(rctk, float_onnx):
    found = rctk("inspect", float_onnx, "--engine", "openvino", "--layers")
    assert "0 of" in found.out
    assert "f32" in found.out


class Residual(torch.nn.Module):
    """Two residual adds, each beside two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two, self.three = (torch.nn.Conv2d(n, 4, 3, padding=1) for n in (1, 4, 4, 4))
        self.head = torch.nn.Linear(4, 10)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.two(self.one(x)))
        x = torch.relu(self.three(self.one(x)) + x)
        return self.head(x.mean(dim=(2, 3)))


def test_adds_that_are_not_rounded_are_named_with_the_target_that_helps(rctk, tmp_path):
    model = capture(Residual().eval(), DIGITS)
    settings = ExportSettings(targets=("cpu", "openvino"))
    files = quantize(model, read_split("digits:train", samples=32), settings, Silent())
    for made in files:
        save_onnx(made.model, tmp_path / f"{made.target}.onnx")
    sums = [node.name for node in model.graph.node if node.op_type == "Add"]
    assert unrounded_sums(tmp_path / "cpu.onnx") == sums
    assert unrounded_sums(tmp_path / "openvino.onnx") == []
    shown = rctk("inspect", "cpu.onnx", "--engine", "openvino").out
    assert all(name in shown for name in sums)
    assert "--target openvino" in shown
    assert "twin" not in rctk("inspect", "openvino.onnx", "--engine", "openvino").out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--engine", "reference"), "leave --engine away"),
        (("--engine", "openvino", "--sensitivity"), "leave the other flags away"),
        (("--engine", "openvino", "--target", "cpuu"), "cpuu"),
    ],
)
def test_flags_that_do_not_fit_are_refused(rctk, bundle, flags, words):
    assert words in rctk("inspect", bundle, *flags).refusal


def test_files_that_openvino_does_not_read_are_refused(rctk, checkpoint, float_onnx):
    assert "looks into bundles, .onnx and .xml files" in rctk("inspect", checkpoint, "--engine", "openvino").refusal
    refusal = rctk("inspect", float_onnx, "--engine", "openvino", "--target", "cpu").refusal
    assert "is a bare file" in refusal


def test_without_openvino_the_install_line_is_named(start, bundle):
    done = start("inspect", bundle, "--engine", "openvino", before="import sys; sys.modules['openvino'] = None")
    assert "pip install 'rctk[openvino]'" in done.communicate(timeout=60)[1]
    assert done.returncode == 2
