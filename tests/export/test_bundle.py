from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rctk_export import bundle as module
from rctk_export.bundle import MANIFEST, Bundle, is_bundle, manifest_sha256, read_bundle
from rctk_export.bundle_writer import BundleWriter
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import BundleError

INPUT = InputSpec(channels=3, height=32, width=32, mean=(0.485, 0.456, 0.406), std=(1 / 255, 0.5, 1.0))
FILES = {("float", ""): b"the parent", ("int8", "tensorrt"): b"signed", ("int8", "cpu"): b"unsigned"}


def write(path: Path, files: dict[tuple[str, str], bytes] = FILES, *, force: bool = False) -> Bundle:
    with BundleWriter(path, force=force) as writer:
        for (role, target), data in files.items():
            writer.add(role, target, data, {"agreement": 0.995} if target else {})
        return writer.commit(
            name="resnet20",
            input=INPUT,
            classes=("cat", "größer"),
            model={"file": "model.pt", "arch": "resnet20"},
            calibration={"data": "cifar10:train", "samples": 512},
            versions={"python": "3.11"},
        )


@pytest.fixture
def bundle(tmp_path):
    return write(tmp_path / "model-int8")


def resign(path: Path, **changes: object) -> None:
    """Change a manifest and give it the hash that fits, as somebody with bad intentions would."""
    values = {**json.loads((path / MANIFEST).read_text()), **changes}
    (path / MANIFEST).write_text(json.dumps({**values, "sha256": manifest_sha256(values)}))


def test_what_was_written_is_read_back(bundle):
    again = read_bundle(bundle.path)
    assert again == bundle
    assert again.input == INPUT
    assert again.classes == ("cat", "größer")
    assert again.calibration == {"data": "cifar10:train", "samples": 512}
    assert {file.path: (bundle.path / file.path).read_bytes() for file in again.files} == {
        "float.onnx": b"the parent",
        "int8-tensorrt.onnx": b"signed",
        "int8-cpu.onnx": b"unsigned",
    }
    # printf signed | sha256sum
    assert again.file("int8", "tensorrt").sha256 == "4a3cdfae6f291c8f544daea5b72905cf9e74c1ed427d831ad0d7ca00c73c794d"
    assert again.file("int8", "tensorrt").facts == {"agreement": 0.995}
    assert is_bundle(bundle.path)


def test_facts_may_hold_numpy_scalars_tuples_and_integer_keys(tmp_path):
    with BundleWriter(tmp_path / "b") as writer:
        writer.add("float", "", b"x", {"rate": np.float32(0.5), "n": np.int64(3), "by_class": {10: 1, 2: (4, 5)}})
        made = writer.commit(name="b", input=INPUT, classes=(), model={}, calibration={})
    assert read_bundle(tmp_path / "b").files[0].facts == {"rate": 0.5, "n": 3, "by_class": {"10": 1, "2": [4, 5]}}
    assert made == read_bundle(tmp_path / "b")


def test_facts_with_nan_are_refused(tmp_path):
    with BundleWriter(tmp_path / "b") as writer:
        writer.add("float", "", b"x", {"agreement": float("nan")})
        with pytest.raises(BundleError, match="finite"):
            writer.commit(name="b", input=INPUT, classes=(), model={}, calibration={})
    assert list(tmp_path.iterdir()) == []


def test_source_names_file_role_target_and_hash(bundle):
    source = bundle.source("int8", "tensorrt")
    assert (source.path, source.role, source.target) == (bundle.path / "int8-tensorrt.onnx", "int8", "tensorrt")
    assert source.sha256 == bundle.file("int8", "tensorrt").sha256
    assert bundle.source("float").path.name == "float.onnx"
    assert bundle.targets() == ["tensorrt", "cpu"]


def test_cpu_is_meant_where_no_target_is_named(bundle):
    assert bundle.source().target == "cpu"


def test_the_only_target_is_meant_where_none_is_named(tmp_path):
    assert write(tmp_path / "b", {("int8", "tensorrt"): b"1"}).source().target == "tensorrt"


@pytest.mark.parametrize(("role", "target"), [("int8", "gpu"), ("plan", ""), ("evaluation", "tensorrt")])
def test_asking_for_an_absent_file_names_what_there_is(bundle, role, target):
    with pytest.raises(BundleError, match="it holds float, int8 tensorrt, int8 cpu"):
        bundle.source(role, target)


def test_two_targets_without_cpu_must_be_told_apart(tmp_path):
    made = write(tmp_path / "b", {("int8", "tensorrt"): b"1", ("int8", "cpu-mirror"): b"2"})
    with pytest.raises(BundleError, match="choose one with --target"):
        made.source()


@pytest.mark.parametrize("name", ["float.onnx", "int8-cpu.onnx", "int8-tensorrt.onnx"])
def test_one_changed_byte_is_found_and_named(bundle, name):
    data = bytearray((bundle.path / name).read_bytes())
    data[2] ^= 1
    (bundle.path / name).write_bytes(data)
    with pytest.raises(BundleError, match=rf"{name}.*changed: expected SHA-256 [0-9a-f]{{12}}, found.*rctk export"):
        read_bundle(bundle.path)


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_byte_of_the_manifest_never_changes_what_is_read(bundle, data):
    original = (bundle.path / MANIFEST).read_bytes()
    changed = bytearray(original)
    position = data.draw(st.integers(0, len(original) - 1))
    changed[position] ^= data.draw(st.integers(1, 255))
    (bundle.path / MANIFEST).write_bytes(changed)
    try:
        assert read_bundle(bundle.path) == bundle  # a space became a tab
    except BundleError:
        pass
    finally:
        (bundle.path / MANIFEST).write_bytes(original)


def test_a_shorter_file_is_named(bundle):
    (bundle.path / "float.onnx").write_bytes(b"the")
    with pytest.raises(BundleError, match=r"float\.onnx .* has 3 bytes, the manifest says 10"):
        read_bundle(bundle.path)


def test_a_missing_file_is_named(bundle):
    (bundle.path / "int8-cpu.onnx").unlink()
    with pytest.raises(BundleError, match=r"int8-cpu\.onnx is missing"):
        read_bundle(bundle.path)


def test_a_link_in_place_of_a_file_is_refused(bundle, tmp_path):
    (tmp_path / "elsewhere").write_bytes(b"the parent")
    (bundle.path / "float.onnx").unlink()
    (bundle.path / "float.onnx").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="not a regular file"):
        read_bundle(bundle.path)


@pytest.mark.parametrize(
    "path", ["../float.onnx", "/etc/passwd", "a/b", "..", ".", "", MANIFEST, "a\\b", "C:x", "a\0b"]
)
def test_a_path_that_leaves_the_bundle_is_refused(bundle, path):
    files = json.loads((bundle.path / MANIFEST).read_text())["files"]
    resign(bundle.path, files=[{**files[0], "path": path}])
    with pytest.raises(BundleError, match="only plain file names"):
        read_bundle(bundle.path)


def test_a_newer_schema_asks_for_a_newer_rctk(bundle):
    resign(bundle.path, schema=2, files={"another": "form"})
    with pytest.raises(BundleError, match="needs a newer rctk"):
        read_bundle(bundle.path)


@pytest.mark.parametrize("field", ["name", "input", "classes", "files", "model", "calibration", "versions", "created"])
@pytest.mark.parametrize("value", [None, 7])
def test_a_field_of_another_type_is_an_error(bundle, field, value):
    resign(bundle.path, **{field: value})
    with pytest.raises(BundleError, match="lacks or misstates"):
        read_bundle(bundle.path)


@pytest.mark.parametrize(
    "change", [{"role": "virus"}, {"role": "float", "target": "cpu"}, {"role": "int8", "target": ""}]
)
def test_an_unknown_place_for_a_file_is_an_error(bundle, change):
    files = json.loads((bundle.path / MANIFEST).read_text())["files"]
    resign(bundle.path, files=[{**files[0], **change}])
    with pytest.raises(BundleError, match="no place for a file"):
        read_bundle(bundle.path)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"name": 1}', "\xff", "[" * 100_000, '{"schema": "one"}'])
def test_a_manifest_that_is_none_is_an_error(bundle, text):
    (bundle.path / MANIFEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError, match="damaged"):
        read_bundle(bundle.path)


def test_a_giant_manifest_is_not_read(bundle, monkeypatch):
    monkeypatch.setattr(module, "MANIFEST_BYTES", 100)
    with pytest.raises(BundleError, match="which no manifest is"):
        read_bundle(bundle.path)


def test_what_is_no_bundle_says_how_to_make_one(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    for name, words in [("file", "is a file"), ("folder", f"no {MANIFEST}"), ("nothing", "no bundle at")]:
        assert not is_bundle(tmp_path / name)
        with pytest.raises(BundleError, match=f"{words}.*rctk export"):
            read_bundle(tmp_path / name)


REPLACE_30_TIMES = """
import sys
from pathlib import Path
from rctk_export.bundle_writer import BundleWriter
from rctk_export.input_spec import InputSpec
for i in range(30):
    with BundleWriter(Path(sys.argv[1]), force=True) as writer:
        writer.add("float", "", str(i % 10).encode() * 300_000)
        writer.commit(name="b", input=InputSpec(channels=1, height=1, width=1), classes=(), model={}, calibration={})
"""


def test_reading_works_while_another_process_replaces_the_bundle(tmp_path):
    path = tmp_path / "b"
    write(path, {("float", ""): b"0" * 300_000})
    with subprocess.Popen([sys.executable, "-c", REPLACE_30_TIMES, str(path)]) as child:
        seen = 0
        while child.poll() is None:
            assert read_bundle(path).files[0].size_bytes == 300_000
            seen += 1
    assert child.returncode == 0
    assert seen > 1
