"""A result that cannot be written is refused before the work begins, and a full disk leaves nothing half written."""

from __future__ import annotations

import os

import pytest

from rctk.cli.places import check_file, check_folder
from rctk_kernels.errors import OptionError

WORK = "rctk.cli.{}.read_split"


@pytest.fixture
def file(tmp_path):
    (tmp_path / "file").write_text("kept")
    return tmp_path / "file"


@pytest.fixture
def no_work(monkeypatch):
    for module in ("export_command", "train_command", "attack_command", "compare_run"):
        monkeypatch.setattr(WORK.format(module), lambda *_, **__: pytest.fail("the work had begun"))
    monkeypatch.setattr("rctk.cli.export_command.read_model", lambda *_, **__: pytest.fail("it had begun"))


@pytest.fixture
def call(rctk, checkpoint, bundle, tmp_path):
    places = {"MODEL": checkpoint, "BUNDLE": bundle, "RECORDS": tmp_path / "records.jsonl"}
    return lambda arguments: rctk(*(places.get(argument, argument) for argument in arguments))


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (("export", "MODEL", "--calibration", "digits:train", "-o", "file/out"), "--out"),
        (("export", "MODEL", "--calibration", "digits:train", "-o", "BUNDLE"), "--force"),
        (("export", "MODEL", "--calibration", "digits:train", "-o", "file"), "choose another folder"),
        (("export", "MODEL", "--calibration", "digits:train", "-o", "out", "--records", "file"), "--records"),
        (("train", "--arch", "mlp", "--data", "digits:train", "-o", "file/out.pt"), "--out"),
        (("train", "--arch", "mlp", "--data", "digits:train", "-o", "folder"), "--out"),
        (("train", "--arch", "mlp", "--data", "digits:train", "-o", "out.onnx"), "--out"),
        (("train", "--arch", "mlp", "--data", "digits:train", "-o", "out.pt", "--records", "file"), "--records"),
        (("attack", "BUNDLE", "--data", "digits:test", "--out", "file"), "--out"),
        (("attack", "BUNDLE", "--data", "digits:test", "--records", "file/runs"), "--out"),
        (("bench", "BUNDLE", "--out", "file"), "--out"),
        (("compare", "BUNDLE", "--data", "digits:test", "--out", "file"), "--out"),
        (("compare", "BUNDLE", "--data", "digits:test", "--junit", "folder"), "--junit"),
        (("compare", "BUNDLE", "--data", "digits:test", "--json", "file/x.json"), "--json"),
        (("compare", "BUNDLE", "--data", "digits:test", "--summary", "file/x.md"), "--summary"),
        (("report", "RECORDS", "--out", "folder"), "--out"),
        (("report", "RECORDS", "--markdown", "file/x.md"), "--markdown"),
    ],
    ids=lambda value: " ".join(value).replace("/", "_") if isinstance(value, tuple) else "",
)
@pytest.mark.usefixtures("no_work")
def test_what_cannot_be_written_is_refused_before_any_work(call, tmp_path, file, arguments, flag):
    (tmp_path / "folder").mkdir()
    (tmp_path / "records.jsonl").write_text("")
    done = call(arguments)
    assert flag in done.refusal
    assert done.out == ""
    assert file.read_text() == "kept"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder", "records.jsonl"}


def test_a_folder_without_write_permission(tmp_path, monkeypatch):
    """Root may write everywhere, so the answer of the system is given here."""
    monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.W_OK)
    with pytest.raises(OptionError, match=r"no permission to write in .*; choose another place with --out"):
        check_folder(tmp_path / "a" / "b", "--out")
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match=r"no permission to write .*file; choose another place with --json"):
        check_file(tmp_path / "file", "--json")


def test_a_file_where_a_folder_should_be(file):
    with pytest.raises(OptionError, match=r"cannot write below .*file, which is a file; .* with --out"):
        check_folder(file / "a" / "b", "--out")
    with pytest.raises(OptionError, match=r"is a folder; give the name of a file with --json"):
        check_file(file.parent, "--json")


def test_places_that_can_be_made_pass_and_are_not_made(tmp_path):
    check_folder(tmp_path / "a" / "b", "--out")
    check_file(tmp_path / "a" / "b.json", "--json")
    check_file(None, "--json")
    assert list(tmp_path.iterdir()) == []


FULL = """
import resource, signal
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
"""


def test_a_full_disk_leaves_no_bundle(start, tmp_path, float_onnx, digits):
    arguments = ("export", float_onnx, "--input", "1x8x8", "--calibration", digits, "--target", "cpu", "-o", "deep/out")
    process = start(*arguments, before=FULL.format(limit=4000))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert "File too large" in err.splitlines()[-1]
    assert out == ""
    assert not (tmp_path / "deep").exists()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_full_disk_keeps_the_earlier_report(start, tmp_path, bundle):
    for name in ("report.html", "report.md"):
        (tmp_path / name).write_text("earlier")
    bench = start("bench", bundle, "--calls", "5", "--no-memory", "--engine", "onnxruntime", "--out", ".")
    bench.communicate(timeout=120)
    assert bench.returncode == 0
    for flags in (("--no-html", "--markdown", "report.md"), ("--out", "report.html")):
        process = start("report", ".", *flags, before=FULL.format(limit=500))
        _, err = process.communicate(timeout=120)
        assert process.returncode == 2, err
        assert "File too large" in err.splitlines()[-1]
    assert [(tmp_path / name).read_text() for name in ("report.html", "report.md")] == ["earlier"] * 2
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "report.md", "records.jsonl", "tmp"}
