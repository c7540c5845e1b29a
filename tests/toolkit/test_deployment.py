"""What a path stands for."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import onnx
import pytest

from rctk.deployment import open_deployment
from rctk_export.bundle import file_sha256, manifest_sha256, read_bundle
from rctk_export.engines import ENGINES
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import BundleError, EngineError, EngineUnavailableError, GraphError, OptionError

BUNDLE = Path(__file__).parents[1] / "device" / "data" / "bundle"
SPEC = InputSpec(channels=1, height=8, width=8)


@pytest.fixture
def three_targets(tmp_path):
    """A bundle with a file for ``cpu``, ``openvino`` and ``tensorrt``: the same file thrice."""
    folder = shutil.copytree(BUNDLE, tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    (cpu,) = (file for file in manifest["files"] if (file["role"], file["target"]) == ("int8", "cpu"))
    for target in ("openvino", "tensorrt"):
        shutil.copy(folder / cpu["path"], folder / f"int8-{target}.onnx")
        manifest["files"].append(cpu | {"target": target, "path": f"int8-{target}.onnx"})
    manifest["sha256"] = manifest_sha256(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize(
    ("engine", "target"),
    [
        ("", "cpu"),
        ("auto", "cpu"),
        ("onnxruntime:threads=1", "cpu"),
        ("openvino:batch=1", "openvino"),
        ("tensorrt", "tensorrt"),
        ("onnxruntime-tensorrt", "tensorrt"),
    ],
)
def test_an_engine_means_the_file_that_was_made_for_it(three_targets, engine, target):
    with open_deployment(three_targets, engine=engine) as found:
        assert found.deployed.target == target
    with open_deployment(three_targets, engine=engine, target="cpu") as found:
        assert found.deployed.target == "cpu"
    with open_deployment(BUNDLE, engine=engine) as found:
        assert found.deployed.target == "cpu"


def test_a_bundle_is_its_float_file_and_the_int8_file_of_a_target():
    manifest = read_bundle(BUNDLE)
    with open_deployment(BUNDLE) as found:
        assert (found.name, found.sha256, found.input) == (manifest.name, manifest.sha256, SPEC)
        assert found.classes == tuple("0123456789")
        assert found.need_float().path == BUNDLE / "float.onnx"
        assert (found.deployed.path, found.deployed.target) == (BUNDLE / "int8-cpu.onnx", "cpu")
    with (
        pytest.raises(BundleError, match="no int8 file for target 'tensorrt'"),
        open_deployment(BUNDLE, target="tensorrt"),
    ):
        pass


def test_a_bundle_without_int8_files_is_refused(tmp_path):
    from rctk_export.bundle_writer import BundleWriter

    with BundleWriter(tmp_path / "b") as writer:
        writer.add("float", "", (BUNDLE / "float.onnx").read_bytes())
        writer.commit(name="b", input=SPEC, classes=(), model={}, calibration={})
    with pytest.raises(BundleError, match=r"holds no int8 file; export again"), open_deployment(tmp_path / "b"):
        pass


def test_a_bare_file_gets_normalisation_inside_and_keeps_its_hash():
    path = BUNDLE / "float.onnx"
    shifted = InputSpec(channels=1, height=8, width=8, mean=(0.25,), std=(0.5,))
    images = np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32)
    logits = []
    for spec, x in ((SPEC, (images - 0.25) / 0.5), (shifted, images)):
        with open_deployment(path, spec=spec) as found, ENGINES.build("onnxruntime").open(found.deployed) as engine:
            logits.append(engine.predict(x.astype(np.float32)))
            assert found.sha256 == found.deployed.sha256 == file_sha256(path)
            assert found.float is None
    assert np.allclose(*logits, atol=1e-4)


def test_prepared_files_live_as_long_as_the_block_and_the_given_one_stays(tmp_path):
    given = tmp_path / "model.onnx"
    given.write_bytes((BUNDLE / "float.onnx").read_bytes())
    before = given.read_bytes()
    with open_deployment(given, spec=SPEC, parent=given) as found:
        made = [found.deployed.path, found.need_float().path]
        assert all(path.exists() for path in made)
        assert given not in made
    assert not any(path.exists() for path in made)
    assert given.read_bytes() == before
    assert list(tmp_path.iterdir()) == [given]


@pytest.mark.parametrize(
    ("path", "flags", "error", "words"),
    [
        (BUNDLE, {"spec": SPEC}, OptionError, "already holds normalisation"),
        (BUNDLE, {"parent": Path("x.onnx")}, OptionError, "holds its float file; leave --float x.onnx away"),
        (BUNDLE / "float.onnx", {}, OptionError, "add --input 3x32x32"),
        (BUNDLE / "float.onnx", {"spec": SPEC, "target": "cpu"}, OptionError, "--target chooses a file of a bundle"),
        (BUNDLE / "float.onnx", {"spec": SPEC, "parent": Path("x.onnx")}, OptionError, "there is no file x.onnx"),
        (BUNDLE / "float.onnx", {"spec": SPEC, "parent": BUNDLE}, OptionError, "is not an .onnx file"),
        (BUNDLE / "manifest.json", {"spec": SPEC}, OptionError, "is not an .onnx file"),
        (Path("nowhere.onnx"), {"spec": SPEC}, OptionError, "there is no file nowhere.onnx"),
        (Path("nowhere"), {}, BundleError, "no bundle at nowhere"),
        (BUNDLE.parent, {}, BundleError, "no manifest.json"),
    ],
)
def test_what_cannot_be_meant(path, flags, error, words):
    with pytest.raises(error) as refused, open_deployment(path, **flags):
        pass
    assert words in str(refused.value)


def test_a_graph_that_does_not_fit_is_named(tmp_path):
    model = onnx.load(BUNDLE / "float.onnx")
    model.graph.output.append(model.graph.output[0])
    model.graph.output[1].name = model.graph.node[0].output[0]
    (tmp_path / "two.onnx").write_bytes(model.SerializeToString())
    with (
        pytest.raises(GraphError, match=r"^two\.onnx: expected one output, found 2"),
        open_deployment(tmp_path / "two.onnx", spec=SPEC),
    ):
        pass


def test_on_a_device_a_bare_file_runs_as_it_is_and_cannot_be_normalised(monkeypatch):
    monkeypatch.setattr("rctk.deployment.importlib.util.find_spec", lambda _name: None)
    with open_deployment(BUNDLE / "float.onnx", spec=SPEC) as found:
        assert found.deployed.path == BUNDLE / "float.onnx"
    shifted = InputSpec(channels=1, height=8, width=8, mean=(0.25,))
    with (
        pytest.raises(EngineUnavailableError, match="pip install"),
        open_deployment(BUNDLE / "float.onnx", spec=shifted),
    ):
        pass


def test_a_silent_server_is_given_up_after_the_time_that_the_engine_names():
    silent = socket.create_server(("127.0.0.1", 0))
    address = Path(f"http://127.0.0.1:{silent.getsockname()[1]}/model")
    with (
        silent,
        pytest.raises(EngineError, match=r"no answer within 0\.2 s"),
        open_deployment(address, spec=SPEC, engine="remote:timeout=0.2,retries=0"),
    ):
        pass
