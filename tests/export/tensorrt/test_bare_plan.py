"""A bare plan as a subject: what its record says is believed, only queries reach it, and faults are one line."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

pytest.importorskip("torch")

from rctk.deployment import open_deployment
from rctk.forms import open_forms
from rctk_export.bundle import file_sha256
from rctk_export.input_spec import InputSpec
from rctk_export.tensorrt.record import record_path
from rctk_kernels.errors import OptionError

SPEC = InputSpec(channels=3, height=8, width=8)


@pytest.fixture
def plan(install, rctk, source, tmp_path):
    """The plan of a bare file that is no longer here."""
    install("10.13.3.9")
    s = source(name="net.onnx")
    assert rctk("build", s.path, "--input", "3x8x8", "--max-batch", "16").code == 0
    s.path.rename(tmp_path / "parent.onnx")
    return tmp_path / "net.plan"


@pytest.fixture
def images(tmp_path):
    """Twenty-four images with the classes that the net gives them."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)

    def save(labels):
        np.savez(tmp_path / "set.npz", images=pixels, labels=labels)
        return tmp_path / "set.npz"

    return pixels, save


@pytest.fixture
def data(plan, images):
    pixels, save = images
    feed = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    with open_deployment(plan) as found, open_forms(found, ("engine",), "onnxruntime") as (engine,):
        return save(engine.predict(feed).argmax(1).astype(np.int64))


def records(folder):
    return [json.loads(line) for line in (folder / "runs" / "records.jsonl").read_text().splitlines()]


def test_the_record_says_what_goes_in_and_the_plan_runs_in_tensorrt_only(plan):
    with open_deployment(plan) as found:
        assert (found.name, found.sha256, found.input) == ("net.plan", file_sha256(plan), SPEC)
        assert (found.plan, found.served, found.float, found.evaluation) == (True, False, None, None)
        assert found.deployed.path == plan
        assert [found.engine_of(name) for name in ("onnxruntime", "auto", "tensorrt", "tensorrt:device=0")] == [
            "tensorrt",
            "tensorrt",
            "tensorrt",
            "tensorrt:device=0",
        ]
        for engine, words in (
            ("openvino", "runs in TensorRT, not in openvino"),
            ("tensorrt:plan=a", "leave plan= out"),
        ):
            with pytest.raises(OptionError, match=words):
                found.engine_of(engine)
        with open_forms(found, ("engine",), "onnxruntime") as (engine,):
            assert engine.model is None
        with (
            pytest.raises(OptionError, match="holds no graph to differentiate; use --on engine"),
            open_forms(found, ("twin",), "onnxruntime"),
        ):
            pass
    with open_deployment(plan, spec=SPEC) as found:
        assert found.input == SPEC


def test_a_protocol_on_a_bare_plan_names_the_tiers_that_need_a_graph(rctk, plan, data, tmp_path):
    done = rctk("attack", plan, "--input", "3x8x8", "--data", data, "--eps", "0.02", "--protocol", "quick")
    assert done.code == 0, done.err
    assert "note: tier transfer-float did not run: no float parent" in done.out
    assert "note: tier transfer-twin did not run: no twin of the deployed file, a TensorRT plan holds no" in done.out
    assert "not run: transfer-float, transfer-twin, differential, so a complete protocol may find less" in done.out
    (record,) = records(tmp_path)
    assert record["subject"]["engine"] == "tensorrt"
    assert record["subject"]["sha256"] == file_sha256(plan)
    assert {entry["tier"] for entry in record["values"]["per_attack"]} == {"substitute", "score", "decision"}
    checks = {check["check"]: check["verdict"] for check in record["values"]["protocol"]["audit"]["checks"]}
    assert (checks["outputs.logits"], checks["gradients.zero"]) == ("pass", "not run")


def test_queries_reach_a_bare_plan_and_a_parent_lends_its_gradients(rctk, plan, data, tmp_path):
    flags = ("--data", data, "--eps", "0.02")
    assert rctk("attack", plan, *flags, "--attack", "square:queries=5").code == 0
    assert "no subject has a torch model" in rctk("attack", plan, *flags, "--attack", "fgsm").refusal
    needs = rctk("attack", plan, *flags, "--attack", "square:queries=5", "--metric", "clever").refusal
    assert "clever needs gradients and engine has no torch model" in needs
    parent = ("--float", tmp_path / "parent.onnx")
    assert "parent.onnx is a bare file; add --input" in rctk("compare", plan, *flags, *parent).refusal
    attacks = ("--attack", "fgsm", "--attack", "square:queries=5")
    done = rctk("compare", plan, *flags, *parent, "--input", "3x8x8", *attacks, "--max-drop", "0.5")
    assert done.code == 0, done.err
    assert "net.plan (bare plan, tensorrt) on 24 images" in done.out
    made = records(tmp_path)
    assert [record["kind"] for record in made] == ["attack", "compare"]
    done = rctk("bench", plan, "--calls", "2", "--warmup", "1", "--no-memory")
    assert done.code == 0, done.err


def test_other_commands_run_a_bare_plan_and_record_its_engine(rctk, plan, data, tmp_path):
    done = rctk("curve", plan, "--data", data, "--on", "engine", "--attack", "square:queries=3", "--budgets", "0.01")
    assert done.code == 0, done.err
    assert records(tmp_path)[-1]["settings"]["engine"] == "tensorrt"
    assert rctk("audit", plan, "--on", "engine", "--data", data, "--eps", "0.02").code == 0
    assert "is a plan already; give the bundle or the .onnx file" in rctk("build", plan).refusal


def test_what_does_not_fit_a_plan_is_one_line(rctk, plan, data, tmp_path):
    flags = ("--data", data, "--attack", "square:queries=5")
    for more, words in (
        (("--input", "3x9x9"), "was built for images 3x8x8, --input says 3x9x9"),
        (("--input", "3x8x8", "--mean", "0.5,0.5,0.5"), "holds its normalisation since it was built"),
        (("--target", "cpu"), "net.plan is a bare plan"),
        (("--float", tmp_path / "x.onnx", "--input", "3x8x8"), "there is no file"),
        (("--on", "float"), "has no float parent"),
        (("--engine", "onnxruntime:threads=2"), "runs in TensorRT, not in onnxruntime:threads=2"),
    ):
        assert words in rctk("attack", plan, *flags, *more).refusal
    assert "there is no plan" in rctk("attack", "other.plan", *flags).refusal
    record_path(plan).unlink()
    assert "nobody knows where it was built" in rctk("attack", plan, *flags).refusal
    assert not (tmp_path / "runs").exists()


def test_without_tensorrt_a_bare_plan_is_refused_with_what_to_install(rctk, plan, data, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("rctk_export.tensorrt.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    for command in (("attack", plan, "--protocol", "quick"), ("attack", plan, "--attack", "square:queries=5")):
        assert "TensorRT" in rctk(*command, "--data", data).refusal
