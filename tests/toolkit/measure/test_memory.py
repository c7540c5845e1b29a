from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from rctk.measure.child import reason
from rctk.measure.memory import Memory, device_memory, engine_memory, parse_nvmap
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
    assert reason(-9, "") == "its process was ended by SIGKILL (out of memory?)"
    assert reason(-11, "noise") == "its process was ended by SIGSEGV"
    assert reason(1, "Traceback\n  ...\nMemoryError\n\n") == "MemoryError"
    assert reason(3, "") == "its process ended with code 3"


def test_the_three_figures_are_apart_and_planned_is_the_file_here(linear):
    source = linear()
    memory = engine_memory("onnxruntime", source, batch=1)
    assert memory.planned_bytes == source.path.stat().st_size  # ONNX Runtime on a CPU reserves nothing beforehand
    assert isinstance(memory.system_bytes, int)
    assert memory.device_source in {"", "nvidia-smi"}
    assert "total" not in "".join(Memory._fields)


NVMAP = """\
CLIENT                        PROCESS      PID        SIZE
user                          python3     4242     310440K
user                          gnome-shell 1900       2048K
user                          python3     4242          1M
user                          my app        77        512
total                                                312M
"""


def test_nvmap_is_read_by_process_and_names_may_hold_spaces(tmp_path):
    assert parse_nvmap(NVMAP) == {4242: 310440 * 1024 + MIB, 1900: 2 * MIB, 77: 512}
    assert parse_nvmap("") == parse_nvmap("CLIENT PROCESS\nuser x y z\n") == {}
    path = tmp_path / "sys/kernel/debug/nvmap/iovmm/clients"
    path.parent.mkdir(parents=True)
    path.write_text(NVMAP)
    assert device_memory(1900, tmp_path) == (2 * MIB, "nvmap")
