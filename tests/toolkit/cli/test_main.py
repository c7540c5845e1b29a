"""Exit codes, streams and signals of the entry point."""

from __future__ import annotations

import errno
import os
import signal
import sys

import pytest

from rctk.cli import doctor_command
from rctk.cli.main import main, open_streams, run, set_environment
from rctk.cli.stop import Stop, StoppedError, end_at_once
from rctk_kernels.errors import DataError, RctkError


@pytest.fixture
def failing(monkeypatch, capsys):
    """Let ``rctk doctor`` fail in a given way; return exit code and what stderr says."""

    def call(error, stop=None):
        def broken():
            raise error

        monkeypatch.setattr(doctor_command, "checks", broken)
        return run(["doctor"], stop), capsys.readouterr().err

    return call


def not_found(package):
    return ModuleNotFoundError(f"No module named {package!r}", name=package)


def chained(cause):
    error = ImportError("wrapped")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DataError("no images;\n give some"), 2, "rctk: no images; give some"),
        (
            not_found("torch"),
            2,
            "rctk: this needs the package torch, which is not installed; `pip install 'rctk[host]'`",
        ),
        (
            chained(not_found("onnxruntime.capi")),
            2,
            "rctk: this needs the package onnxruntime, which is not installed; `pip install 'rctk[ort]'`",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "a/b"),
            2,
            "rctk: a/b: No space left on device; free some space or choose another disk",
        ),
        (PermissionError(errno.EACCES, "No", "a"), 2, "rctk: a: No; choose a place that you may write to"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a"), 2, "rctk: a: No such file; check the path"),
        (MemoryError(), 2, "rctk: out of memory; use a smaller batch or fewer --samples"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
            2,
            "rctk: out of memory; use a smaller batch or fewer --samples",
        ),
        (KeyboardInterrupt(), 130, "rctk: interrupted; finished results are kept"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_the_user_can_mend_is_one_line(failing, error, code, line):
    assert failing(error) == (code, line + "\n")


@pytest.mark.parametrize("error", [ZeroDivisionError("of ours"), not_found("our_own_module"), SystemExit(1)])
def test_a_bug_shows_its_traceback(failing, error):
    code, text = failing(error)
    assert code == 70
    assert text.startswith("Traceback")
    assert text.endswith("rctk: this is a bug in rctk; please report it with the lines above\n")


def test_every_error_of_rctk_is_the_user_s_to_mend(failing):
    for kind in RctkError.__subclasses__():
        assert failing(kind("x")) == (2, "rctk: x\n")


def test_a_signal_that_a_library_swallowed_or_reworded_still_counts(failing, capsys):
    stop = Stop()
    with pytest.raises(StoppedError):
        stop(signal.SIGTERM, None)
    code, text = failing(ImportError("the import was cut short"), stop)
    assert (code, text) == (143, "rctk: terminated; finished results are kept\n")
    assert run(["--version"], stop) == 143
    capsys.readouterr()


def test_a_second_signal_does_not_disturb_the_cleanup_of_the_first(monkeypatch):
    now = iter([10.0, 10.5, 12.0])
    monkeypatch.setattr("rctk.cli.stop.time.monotonic", lambda: next(now))
    stop = Stop()
    with pytest.raises(StoppedError):
        stop(signal.SIGINT, None)
    stop(signal.SIGINT, None)  # half a second later
    with pytest.raises(StoppedError):  # two seconds later: it hangs
        stop(signal.SIGINT, None)


def test_signals_that_the_parent_ignores_stay_ignored():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        end_at_once()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        stop = Stop()
        stop.install()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) is stop
        stop.too_late()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_the_environment_is_set_only_where_the_user_left_it(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    for name in ("OMP_WAIT_POLICY", "ORT_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    set_environment()
    names = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "ORT_DISABLE_TELEMETRY")
    assert [os.environ[name] for name in names] == ["3", "PASSIVE", "1"]


def test_closed_streams_take_what_is_printed(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    open_streams()
    print("nobody reads this")
    sys.stdout.close()


def test_main_leaves_with_the_code_of_the_command(monkeypatch, capsys):
    for name in ("set_environment", "open_streams"):
        monkeypatch.setattr(f"rctk.cli.main.{name}", lambda: None)
    monkeypatch.setattr(Stop, "install", lambda _self: None)
    monkeypatch.setattr(Stop, "too_late", lambda _self: None)
    for arguments, code in ((["--version"], 0), (["nothing"], 2)):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == code
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("arguments", [("list", "data"), ("attack", "--help")])
def test_a_reader_that_leaves_early_gets_the_code_of_sigpipe(start, arguments):
    """Neither a traceback nor a success: a gate whose verdict nobody read has not passed."""
    process = start(*arguments, before="import sys; sys.stdin.read(0)")
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == ""


def test_a_full_output_is_told(start):
    process = start("list", "data", before="import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1)")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err == "rctk: output: No space left on device; free some space or choose another disk\n"


def test_a_name_that_is_no_text_can_be_printed(start, tmp_path, bundle):
    (tmp_path / os.fsdecode(b"b\xff")).symlink_to(bundle)
    process = start("bench", os.fsdecode(b"b\xff"), "--calls", "2", "--no-memory")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


@pytest.mark.parametrize(
    ("package", "arguments", "step"),
    [
        ("onnxruntime", ("attack", "BUNDLE", "--data", "DIGITS"), "pip install 'rctk[ort]'"),
        ("onnxruntime", ("bench", "BUNDLE", "--engine", "onnxruntime"), "pip install 'rctk[ort]'"),
        ("torchattacks", ("attack", "BUNDLE", "--data", "DIGITS", "--attack", "torchattacks-pgd"), "torchattacks=="),
        ("torch", ("attack", "BUNDLE", "--data", "DIGITS"), "--attack square, or `pip install 'rctk[host]'`"),
        ("onnx", ("inspect", "BUNDLE"), "pip install 'rctk[host]'"),
        ("sklearn", ("bench", "BUNDLE", "--data", "digits:test"), "pip install 'rctk[host]'"),
    ],
)
def test_what_is_not_installed_names_its_install_line(start, bundle, digits, package, arguments, step):
    blocker = f"""
import importlib.util, sys
sys.modules[{package!r}] = None
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.partition(".")[0] == {package!r} else find(name, *rest)
"""
    places = {"BUNDLE": bundle, "DIGITS": digits}
    process = start(*(places.get(argument, argument) for argument in arguments), before=blocker)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert step in err
    assert len(err.strip().splitlines()) == 1, err
