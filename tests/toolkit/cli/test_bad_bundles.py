"""Whoever reads a bundle notices damage, and says what to do; nobody writes over what is not a bundle."""

from __future__ import annotations

import json
import shutil

import pytest

from rctk_export.bundle_writer import BundleWriter
from rctk_export.onnx_files import load_onnx

COMMANDS = {
    "inspect": (),
    "bench": ("--calls", "2"),
    "attack": ("--data", "digits:test", "--attack", "square:queries=2"),
    "compare": ("--data", "digits:test", "--attack", "square:queries=2"),
}


def one_byte(path):
    file = path / "int8-cpu.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def one_word(path):
    file = path / "manifest.json"
    file.write_text(file.read_text().replace('"samples": 512', '"samples": 513'))


def newer(path):
    file = path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema": 99}))


def half(path):
    file = path / "manifest.json"
    file.write_text(file.read_text()[:200])


DAMAGES = [
    (one_byte, ["int8-cpu.onnx", "was changed", "rctk export --force"]),
    (one_word, ["manifest.json", "was changed"]),
    (newer, ["needs a newer rctk", "schema is 99", "pip install -U rctk"]),
    (half, ["damaged or not a manifest"]),
    (lambda path: (path / "int8-cpu.onnx").unlink(), ["int8-cpu.onnx is missing"]),
    (lambda path: (path / "manifest.json").unlink(), ["no manifest.json", "rctk export"]),
    (shutil.rmtree, ["no bundle at", "rctk export"]),
]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("damage", "words"), DAMAGES, ids=[words[0].replace(" ", "-") for _, words in DAMAGES])
def test_damage_is_found_by_every_command(rctk, own_bundle, tmp_path, command, damage, words):
    damage(own_bundle)
    refusal = rctk(command, own_bundle, *COMMANDS[command]).refusal
    assert [word for word in words if word not in refusal] == []
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def export(rctk, float_onnx, digits):
    few = ("--calibration-samples", "16", "--check-samples", "16", "--target", "cpu")
    return lambda *more: rctk("export", float_onnx, "--input", "1x8x8", "--calibration", digits, *few, *more)


def test_an_earlier_bundle_is_replaced_only_when_asked(export, own_bundle):
    before = (own_bundle / "manifest.json").read_bytes()
    assert "own is a bundle already; replace it with --force" in export("-o", own_bundle).refusal
    assert (own_bundle / "manifest.json").read_bytes() == before
    assert export("-o", own_bundle, "--force").code == 0
    assert (own_bundle / "manifest.json").read_bytes() != before


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_folder_that_is_no_bundle_stays_as_it_is(export, tmp_path, force):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("two years")
    refusal = export("-o", "mine", *force).refusal
    assert "thesis.txt" in refusal
    assert "choose another folder" in refusal
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "two years"


def test_a_bundle_that_another_process_writes(export, tmp_path):
    with BundleWriter(tmp_path / "out"):
        refusal = export("-o", "out").refusal
    assert "another process" in refusal
    assert not (tmp_path / "out").exists()


def test_a_replaced_folder_between_check_and_commit_is_not_lost(export, tmp_path, monkeypatch):
    """Somebody puts a file into the folder while the export works."""

    def meanwhile(*args, **kwargs):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").write_text("two years")
        return load_onnx(*args, **kwargs)

    monkeypatch.setattr("rctk.exporting.float_model.load_onnx", meanwhile)
    assert "thesis.txt" in export("-o", "out").refusal
    assert (tmp_path / "out" / "thesis.txt").read_text() == "two years"
