"""Ctrl-C and SIGTERM while a command works: exit 130 or 143, nothing half written, no temporary files."""

from __future__ import annotations

import json
import signal
import time

import pytest

from rctk.checkpoint import load_model

ENDLESS = "square:queries=1000000"
"""Stopped long before it is through."""


@pytest.fixture
def stop(start, tmp_path):
    """Start a command, wait until stderr or a file shows that it is at work, send a signal."""

    def call(*arguments, after, number=signal.SIGINT, pause_s=0.0):
        process = start(*arguments)
        if callable(after):
            deadline = time.monotonic() + 120
            while not after() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
        else:
            while (line := process.stderr.readline()) and not line.startswith(after):
                pass
        time.sleep(pause_s)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert "Traceback" not in err, err
        assert not [path for path in (tmp_path / "tmp").iterdir() if path.name.startswith(("rctk", "tmp"))]
        return process.returncode, out, err

    return call


def names(folder):
    return {path.name for path in folder.iterdir()} - {"tmp"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_export_leaves_nothing(stop, tmp_path, float_onnx, digits, number, code):
    arguments = ("export", float_onnx, "--input", "1x8x8", "--calibration", digits, "-o", "deep/out")
    found, out, err = stop(*arguments, after="calibrate:", number=number)
    assert found == code, err
    assert err.endswith("finished results are kept\n")
    assert out == ""
    assert names(tmp_path) == set()


def test_an_export_over_a_bundle_keeps_it(stop, tmp_path, own_bundle, float_onnx, digits):
    before = (own_bundle / "manifest.json").read_bytes()
    arguments = ("export", float_onnx, "--input", "1x8x8", "--calibration", digits, "-o", own_bundle, "--force")
    new = tmp_path / ".own.new"
    code, *_ = stop(*arguments, after=new.exists)
    assert code == 130
    assert (own_bundle / "manifest.json").read_bytes() == before
    assert names(tmp_path) == {"own"}


@pytest.mark.parametrize("command", ["attack", "compare"])
def test_an_attack_leaves_no_record(stop, tmp_path, bundle, digits, command):
    """The bare file makes temporary files, and these go away."""
    files = (bundle / "int8-cpu.onnx", "--float", bundle / "float.onnx", "--input", "1x8x8")
    attacks = ("--attack", "square:queries=1", "--attack", ENDLESS)
    code, out, _ = stop(command, *files, "--data", digits, *attacks, after="square:queries=1 on", pause_s=0.2)
    assert (code, out) == (130, "")
    assert names(tmp_path) == set()


def test_a_bench_leaves_no_record(stop, tmp_path, bundle):
    temporary = tmp_path / "tmp"
    files = (bundle / "int8-cpu.onnx", "--input", "1x8x8", "--engine", "onnxruntime")
    arguments = ("bench", *files, "--calls", "100000000", "--no-memory")
    code, out, _ = stop(*arguments, after=lambda: any(temporary.rglob("int8-*")), pause_s=0.5)
    assert (code, out) == (130, "")
    assert names(tmp_path) == set()


def test_training_keeps_the_epochs_that_are_done(stop, tmp_path, digits):
    arguments = ("train", "--arch", "mlp", "--data", digits, "--epochs", "100000", "-o", "out.pt")
    code, *_ = stop(*arguments, after="epoch 3/")
    assert code == 130
    assert names(tmp_path) == {"out.pt", "out-last.pt", "out-resume.pt"}
    for path in ("out.pt", "out-last.pt"):
        assert json.dumps(load_model(tmp_path / path).extra["epoch"])


@pytest.mark.parametrize("delay_s", [0.1, 0.4, 0.8])
def test_a_signal_while_the_program_starts(start, tmp_path, checkpoint, delay_s):
    """Packages are being imported; some turn an interruption into errors of their own."""
    process = start("export", checkpoint, "--calibration", "digits:train", "-o", "out")
    time.sleep(delay_s)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in {130, -signal.SIGINT}, err  # the second before rctk itself has started
    assert names(tmp_path) == set()
