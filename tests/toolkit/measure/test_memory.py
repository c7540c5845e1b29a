from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from rctk.measure.memory import _reason, engine_memory
from rctk_kernels.errors import EngineError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
MIB = 2**20


def test_an_engine_holds_at_least_its_weights_and_not_the_interpreter(linear):
    small = engine_memory("onnxruntime", linear(), batch=1)
    large = engine_memory(
        "onnxruntime", linear(side=128, classes=1024), batch=1
    )  # 16384 x 1024 x 4 = 64 MiB of weights
    assert small.engine_rss_bytes < 32 * MIB < small.peak_rss_bytes
    assert 64 * MIB <= large.engine_rss_bytes - small.engine_rss_bytes < 4 * 64 * MIB
    assert large.peak_rss_bytes > large.engine_rss_bytes


def test_neither_torch_nor_onnx_nor_the_users_folder_is_needed(linear, tmp_path, monkeypatch):
    source = linear()
    poison = "raise SystemExit('imported ' + __name__)"
    (tmp_path / "path").mkdir()
    for name in ("torch", "onnx"):
        (tmp_path / "path" / f"{name}.py").write_text(poison)
    (tmp_path / "numpy.py").write_text(poison)  # in the folder where the user happens to be
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "path")
    assert engine_memory("onnxruntime", replace(source, path=source.path.relative_to(tmp_path)), batch=1).peak_rss_bytes


@pytest.mark.parametrize(
    ("engine", "words"),
    [("onnxruntim", "did you mean 'onnxruntime'"), ("onnxruntime:threads=0", "threads must be 1 or more")],
)
def test_a_wrong_engine_is_one_line(linear, engine, words):
    with pytest.raises(EngineError, match=words) as caught:
        engine_memory(engine, linear(), batch=1)
    assert "\n" not in str(caught.value)


def test_a_broken_file_is_one_line(linear):
    source = linear()
    source.path.write_bytes(b"not onnx")
    with pytest.raises(EngineError, match=r"measuring the memory of onnxruntime failed: .*cannot load") as caught:
        engine_memory("onnxruntime", source, batch=1)
    assert "\n" not in str(caught.value)


def test_a_slow_engine_is_ended(linear):
    with pytest.raises(EngineError, match=r"took more than 0\.01 s"):
        engine_memory("onnxruntime", linear(), batch=1, timeout_s=0.01)


def test_the_reason_of_a_killed_process():
    assert _reason(-9, "") == "its process was ended by SIGKILL (out of memory?)"
    assert _reason(-11, "noise") == "its process was ended by SIGSEGV"
    assert _reason(1, "Traceback\n  ...\nMemoryError\n\n") == "MemoryError"
    assert _reason(3, "") == "its process ended with code 3"
