"""Candidates of one machine, judged on another."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rctk.cli.main import run
from rctk.data.split import Split
from rctk.evaluation.subjects import Subject
from rctk.replay import Candidates, CandidateSet, read_candidates, replay, write_candidates
from rctk.threat import ThreatModel
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import DataError

DATA = Path(__file__).parents[1] / "device" / "data"
BLOCKED = ("torch", "onnx", "matplotlib", "pandas", "scipy", "sklearn", "tritonclient", "uvicorn", "starlette")


def brightness(images):
    """Class 1 where the mean is above a half."""
    mean = images.mean(axis=(1, 2, 3))
    return np.stack([0.5 - mean, mean - 0.5], axis=1).astype(np.float32)


def made(shift=0.2, eps=0.25):
    """Four grey images; the candidates are ``shift`` brighter."""
    images = np.full((4, 1, 2, 2), 0.125, dtype=np.float32) * np.arange(1, 5, dtype=np.float32).reshape(4, 1, 1, 1)
    labels = np.array([0, 0, 1, 0])  # the third is wrong from the start, the last has the mean 0.5: class 0 by argmax
    split = Split(name="grey", images=images, labels=labels)
    robust = np.array([True, True, False, False])
    one = CandidateSet(
        name="engine", images=images + np.float32(shift), clean=np.array([True, True, False, True]), robust=robust
    )
    facts = {"attacks": ["pgd"], "seed": 3, "subject": {"file_sha256": "ab"}}
    spec = InputSpec(channels=1, height=2, width=2)
    return Candidates(split=split, sets=(one,), threat=ThreatModel(eps=eps), input=spec, facts=facts)


def test_a_file_comes_back_as_it_was(tmp_path):
    before = made()
    write_candidates(tmp_path / "c.npz", before)
    after = read_candidates(tmp_path / "c.npz")
    assert np.array_equal(after.split.images, before.split.images)
    assert after.split.fingerprint == before.split.fingerprint
    assert np.array_equal(after.sets[0].images, before.sets[0].images)
    assert after.sets[0].broken.tolist() == [False, False, False, True]
    assert (after.threat, after.input, after.file_sha256) == (before.threat, before.input, "ab")
    assert after.facts["attacks"] == ["pgd"]


def test_replay_of_known_images():
    # means 0.125, 0.25, 0.375, 0.5 become 0.325, 0.45, 0.575, 0.7: of the three right ones only the last breaks
    result, (found,) = replay(Subject(name="engine", predict=brightness), made(), batch_size=3)
    assert result.clean["engine"].tolist() == [True, True, False, True]
    assert result.robust["engine"].tolist() == [True, True, False, False]
    assert found == ("engine", 3, 1, 1, 1, 0)
    assert result.entries[0].tier("engine") == "transfer-elsewhere"


def test_candidates_beyond_the_budget_are_brought_back():
    result, (found,) = replay(Subject(name="engine", predict=brightness), made(shift=0.4, eps=0.1), batch_size=4)
    assert found.moved == 4
    assert np.abs(result.adversarial["engine"] - made().split.images).max() <= 0.1 + 1e-6


@pytest.mark.parametrize("position", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_changed_byte_is_found(tmp_path, position):
    path = tmp_path / "c.npz"
    write_candidates(path, made())
    data = bytearray(path.read_bytes())
    data[int(position * len(data))] ^= 0x55
    path.write_bytes(data)
    try:
        after = read_candidates(path)
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:  # a byte of the zip's own table that nobody reads
        assert np.array_equal(after.sets[0].images, made().sets[0].images)


def test_exchanged_images_are_found_although_the_file_is_whole(tmp_path):
    path = tmp_path / "c.npz"
    write_candidates(path, made())
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["candidates_0"] = arrays["images"]
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=r"candidates_0 in .* was changed"):
        read_candidates(path)


@pytest.mark.parametrize("size", [0, 10, 1000])
def test_a_file_that_was_cut_short(tmp_path, size):
    path = tmp_path / "c.npz"
    write_candidates(path, made())
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match="copy it again"):
        read_candidates(path)


def test_pickles_and_other_files_are_not_read(tmp_path):
    np.savez(tmp_path / "p.npz", manifest=np.array([{"a": 1}], dtype=object), checksum=np.zeros(1))
    np.savez(tmp_path / "d.npz", images=np.zeros(3))
    for name, text in [("p.npz", "no file of candidates"), ("d.npz", "no manifest"), ("none.npz", "there is no file")]:
        with pytest.raises(DataError, match=text):
            read_candidates(tmp_path / name)


def test_from_the_workstation_to_the_device_and_back(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    common = ["attack", str(DATA / "bundle"), "--data", str(DATA / "digits.npz"), "--eps", "0.1", "--on", "float"]
    attacks = ["--on", "engine", "--attack", "apgd-ce:steps=10", "--save-candidates", "out/candidates.npz"]
    assert run([*common, *attacks]) == 0, capsys.readouterr().err
    there = json.loads((tmp_path / "runs/records.jsonl").read_text().splitlines()[-1])["values"]

    device = tmp_path / "device"
    device.mkdir()
    shutil.copy(tmp_path / "out/candidates.npz", device)
    text = (
        f"import sys\nfor name in {BLOCKED}: sys.modules[name] = None\n"
        "import importlib.util as u\nfind = u.find_spec\n"
        f"u.find_spec = lambda name, package=None: None if name in {BLOCKED} else find(name, package)\n"
        "from rctk.cli.main import main\nmain()"
    )
    command = [sys.executable, "-c", text, "replay", "candidates.npz", DATA / "bundle"]
    done = subprocess.run([str(part) for part in command], cwd=device, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "made for another file" not in done.stdout
    here = json.loads((device / "runs/records.jsonl").read_text())
    assert here["values"]["robust_accuracy"] == there["robust_accuracy"] < there["clean_accuracy"]
    engine = here["values"]["replay"][1]
    assert engine["broken_there"] == engine["broken_here"] == engine["broken_both"] > 0

    shutil.copytree(device / "runs", tmp_path / "runs" / "device")  # merged: a folder is read with all below it
    capsys.readouterr()
    assert run(["report", "runs", "--no-html"]) == 0
    assert "replay:apgd-ce" in capsys.readouterr().out


def test_another_model_is_refused_or_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_candidates(tmp_path / "c.npz", made())
    assert run(["replay", "c.npz", str(DATA / "bundle")]) == 2
    assert "the candidates have shape (1, 2, 2)" in capsys.readouterr().err
