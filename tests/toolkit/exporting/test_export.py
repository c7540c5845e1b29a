"""A trained net goes through the whole export, and what comes out is what was promised."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from rctk.exporting.agreement import Agreement
from rctk.exporting.export import ExportSettings, draw, export_draft, export_int8, first_draft
from rctk.exporting.float_model import FloatModel, read_float_model
from rctk.progress import Silent
from rctk_export.bundle import read_bundle
from rctk_export.capture import Normalised, capture
from rctk_export.engine import Source
from rctk_export.engines import ENGINES
from rctk_export.onnx_module import OnnxModule
from rctk_kernels.errors import BundleError, DataError, MismatchError, OptionError

SETTINGS = ExportSettings(calibration_samples=128, check_samples=64, check_eps=0.1)


@pytest.fixture(scope="session")
def float_model(small_net, spec):
    names = tuple("0123456789")
    return FloatModel(model=capture(small_net, spec), input=spec, classes=names, origin={"source": "small.pt"})


@pytest.fixture(scope="session")
def bundle(float_model, digits_train, tmp_path_factory):
    return export_int8(float_model, digits_train, tmp_path_factory.mktemp("bundles") / "small", SETTINGS)


def predict(source: Source, images, engine="onnxruntime"):
    with ENGINES.build(engine).open(source) as opened:
        return opened.predict(images)


def test_the_bundle_holds_float_and_every_target_with_the_mirror(bundle):
    again = read_bundle(bundle.path)
    assert [(file.role, file.target) for file in again.files] == [
        ("float", ""),
        ("int8", "cpu"),
        ("int8", "tensorrt"),
        ("int8", "cpu-mirror"),
    ]
    assert again.calibration["samples"] == 128
    assert again.classes == tuple("0123456789")


@pytest.mark.parametrize("installed", [True, False])
def test_a_file_for_openvino_is_compared_with_its_twin_in_openvino_where_that_is(
    float_model, digits_train, tmp_path, monkeypatch, installed
):
    pytest.importorskip("openvino")
    if not installed:
        monkeypatch.setattr("rctk.exporting.agreement.find_spec", lambda name: None)
    made = export_int8(float_model, digits_train, tmp_path / "b", replace(SETTINGS, targets=("openvino",)))
    agreement = made.file("int8", "openvino").facts["agreement"]
    assert agreement["engine"] == ("openvino" if installed else "onnxruntime")
    assert agreement["clean"] >= 0.98


def test_the_float_file_is_the_module_with_normalisation_inside(bundle, small_net, spec, digits_test):
    images = digits_test.images[:32]
    with torch.no_grad():
        expected = Normalised(small_net, spec)(torch.from_numpy(images)).numpy()
    assert np.allclose(predict(bundle.source("float"), images), expected, atol=1e-4)


@pytest.mark.parametrize("target", ["cpu", "cpu-mirror"])
def test_int8_accuracy_is_that_of_the_float_model(bundle, digits_test, target):
    accuracies = [
        (predict(source, digits_test.images).argmax(1) == digits_test.labels).mean()
        for source in (bundle.source("float"), bundle.source("int8", target))
    ]
    assert accuracies[0] > 0.9
    assert abs(accuracies[0] - accuracies[1]) <= 0.02


@pytest.mark.parametrize("target", ["cpu", "tensorrt", "cpu-mirror"])
def test_the_exact_twin_equals_the_reference_code_for_code(bundle, digits_test, target):
    source = bundle.source("int8", target)
    images = digits_test.images[:16]
    names = [n.output[0] for n in onnx.load(source.path).graph.node if n.op_type == "QuantizeLinear"]
    twin = OnnxModule(source.path, mode="exact")
    with torch.no_grad():
        expected = twin.observe(torch.from_numpy(images), names)
        logits = twin(torch.from_numpy(images)).numpy()
    with ENGINES.build("reference").open(source) as engine:
        found = engine.run(images, names)
        reference = engine.predict(images)
    for name in names:
        assert np.array_equal(found[name].astype(np.int64), expected[name].numpy().astype(np.int64)), name
    assert np.array_equal(reference, logits)


def test_tensorrt_file_and_mirror_give_identical_logits_unoptimised(bundle, digits_test):
    logits = [
        predict(bundle.source("int8", target), digits_test.images, "onnxruntime:optimize=false")
        for target in ("tensorrt", "cpu-mirror")
    ]
    assert np.array_equal(*logits)


def test_the_manifest_says_how_often_engine_and_twin_agree(bundle):
    for file in bundle.files[1:]:
        agreement = file.facts["agreement"]
        assert agreement["samples"] == 64
        assert agreement["clean"] >= 0.985
        assert agreement["parent"] >= 0.95
        assert 0 <= agreement["flip_rate"] < 0.05
        assert file.facts["int8_layers"] == ["stem", "conv", "fc"]
        assert file.facts["kept_float"] == []


def test_agreement_below_the_threshold_stops_the_export_and_leaves_nothing(
    float_model, digits_train, tmp_path, monkeypatch
):
    def weak(*_args, **_kwargs):
        shares = {"clean": 0.9, "adversarial": 0.8, "flip_rate": 0.1}
        return Agreement(engine="onnxruntime", samples=64, eps=0.1, flip_samples=64, **shares)

    monkeypatch.setattr("rctk.exporting.export.measure_agreement", weak)
    out = tmp_path / "bundle"
    with pytest.raises(MismatchError, match=r"90.0% of 64 clean images.*--allow-mismatch"):
        export_int8(float_model, digits_train, out, SETTINGS)
    assert list(tmp_path.iterdir()) == []
    seen = Silent()
    export_int8(float_model, digits_train, out, replace(SETTINGS, allow_mismatch=True), progress=seen)
    assert read_bundle(out).files[1].facts["agreement"]["clean"] == 0.9
    assert len(seen.notes) == 3


def test_a_file_that_is_not_its_parent_any_more_is_told_though_its_twin_agrees(float_model, digits_train, tmp_path):
    draft = first_draft(float_model, SETTINGS).with_formats(weight_bits=2, activation_bits=2)
    seen = Silent()
    bundle = export_draft(draft, float_model, digits_train, tmp_path / "b", SETTINGS, progress=seen)
    agreement = bundle.file("int8", "cpu").facts["agreement"]
    assert agreement["parent"] < 0.9
    assert agreement["clean"] >= 0.985
    assert f"int8 file for cpu: {agreement['parent']:.1%} of 64 clean images keep the class" in " ".join(seen.notes)


def test_a_net_of_tiny_values_is_worth_as_much_in_int8(small_net, spec, digits_train, tmp_path):
    net = copy.deepcopy(small_net)
    with torch.no_grad():
        for values in (net.stem.weight, net.stem.bias, net.bn.running_mean, net.conv.bias):
            values.mul_(1e-9)
        net.bn.running_var.mul_(1e-18)
        net.bn.eps *= 1e-18
        net.bn.weight.mul_(1e-9)
        net.bn.bias.mul_(1e-9)
        net.fc.weight.mul_(1e9)
    source = FloatModel(model=capture(net, spec), input=spec, classes=tuple("0123456789"))
    bundle = export_int8(source, digits_train, tmp_path / "b", SETTINGS)
    assert all(file.facts["agreement"]["parent"] >= 0.95 for file in bundle.files[1:])


def test_calibration_and_check_images_are_disjoint(digits_train):
    drawn, check = draw(digits_train, ExportSettings(calibration_samples=512, check_samples=256))
    assert (len(drawn), len(check)) == (512, 256)
    assert not set(drawn.indices.tolist()) & set(check.indices.tolist())


def test_a_small_calibration_set_is_used_for_both(digits_train):
    few = digits_train.sample(20, 0)
    drawn, check = draw(few, ExportSettings())
    assert len(drawn) == 20
    assert len(check) == 20


def test_an_empty_calibration_set_is_refused(float_model, digits_train, tmp_path):
    with pytest.raises(DataError, match="empty"):
        export_int8(float_model, digits_train.take(np.empty(0, dtype=np.int64)), tmp_path / "b", SETTINGS)


def test_an_unknown_layer_is_refused_with_the_nearest_name(float_model, digits_train, tmp_path):
    settings = ExportSettings(keep_float=("stemm",))
    with pytest.raises(OptionError, match="did you mean 'stem'"):
        export_int8(float_model, digits_train, tmp_path / "b", settings)
    assert not (tmp_path / "b").exists()


def test_a_kept_layer_is_in_the_manifest(float_model, digits_train, tmp_path):
    settings = ExportSettings(keep_float=("conv",), calibration_samples=64, check_samples=32)
    made = export_int8(float_model, digits_train, tmp_path / "b", settings)
    for file in made.files[1:]:
        assert [kept["name"] for kept in file.facts["kept_float"]] == ["conv"]


def test_an_unknown_target_is_refused():
    with pytest.raises(OptionError, match="did you mean 'tensorrt'"):
        ExportSettings(targets=("tensorr",))


def test_an_existing_bundle_needs_force(float_model, digits_train, bundle):
    before = (bundle.path / "manifest.json").read_bytes()
    with pytest.raises(BundleError, match="force"):
        export_int8(float_model, digits_train, bundle.path, SETTINGS)
    assert (bundle.path / "manifest.json").read_bytes() == before


def test_stages_are_reported(float_model, digits_train, tmp_path):
    class Seen(Silent):
        stages: tuple[str, ...] = ()

        def stage(self, name, total=None):
            self.stages += (name,)
            return super().stage(name, total)

    seen = Seen()
    export_int8(float_model, digits_train, tmp_path / "b", SETTINGS, progress=seen)
    assert seen.stages == ("calibrate", "check")


def test_a_float_onnx_file_takes_the_place_of_a_checkpoint(bundle, spec, digits_train, tmp_path):
    from rctk_export.input_spec import InputSpec

    plain = InputSpec(channels=1, height=8, width=8)
    model = read_float_model(bundle.path / "float.onnx", input=plain)
    assert len(model.classes) == 10
    made = export_int8(model, digits_train, tmp_path / "b", SETTINGS)
    images = digits_train.images[:64]
    first, second = (predict(b.source("int8", "cpu"), images) for b in (bundle, made))
    assert np.array_equal(first.argmax(1), second.argmax(1))


def test_a_quantized_file_is_not_quantized_again(bundle, spec):
    with pytest.raises(OptionError, match="quantized already"):
        read_float_model(bundle.path / "int8-cpu.onnx", input=spec)


def test_a_graph_that_normalises_gets_no_second_normalisation(bundle, spec):
    from rctk_kernels.errors import GraphError

    with pytest.raises(GraphError, match="already holds normalisation"):
        read_float_model(bundle.path / "float.onnx", input=spec)


def test_an_rctk_checkpoint_needs_no_flags(mlp_checkpoint):
    model = read_float_model(mlp_checkpoint)
    assert model.origin["form"] == "checkpoint"
    assert model.input.normalises


def test_the_manifest_is_plain_json_without_paths(bundle):
    text = (bundle.path / "manifest.json").read_text()
    json.loads(text)
    assert str(bundle.path.parent) not in text


def test_the_optimised_mirror_computes_what_its_file_says(bundle, digits_test):
    """Without the pass that rounds float biases, no optimisation changes a class; see ``unwanted_passes``."""
    source = bundle.source("int8", "cpu-mirror")
    plain, optimised = (
        predict(source, digits_test.images, f"onnxruntime:optimize={word}") for word in ("false", "true")
    )
    assert (plain.argmax(1) == optimised.argmax(1)).all()
    assert np.abs(plain - optimised).max() < 0.05 * np.abs(plain).max()
