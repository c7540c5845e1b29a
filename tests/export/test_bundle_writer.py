from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rctk_export import bundle_writer
from rctk_export.bundle import MANIFEST, Bundle, read_bundle
from rctk_export.bundle_writer import BundleWriter
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import BundleError

INPUT = InputSpec(channels=1, height=8, width=8)


def write(path: Path, data: bytes, *, force: bool = False) -> Bundle:
    with BundleWriter(path, force=force) as writer:
        writer.add("float", "", data)
        return commit(writer)


def commit(writer: BundleWriter) -> Bundle:
    return writer.commit(name="m", input=INPUT, classes=(), model={}, calibration={})


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fails_in_the_middle(path: Path, error: BaseException) -> None:
    with BundleWriter(path, force=True) as writer:
        writer.add("float", "", b"half of it")
        raise error


@pytest.fixture(params=["exchange", "two renames"])
def way(request, monkeypatch):
    """Both ways to put a folder in the place of another."""
    if request.param == "two renames":
        monkeypatch.setattr(bundle_writer, "_exchange", lambda one, two: False)


def test_nothing_but_the_bundle_is_left(tmp_path):
    write(tmp_path / "b", b"x")
    assert set(content(tmp_path)) == {"b/float.onnx", f"b/{MANIFEST}"}


@pytest.mark.usefixtures("way")
def test_force_replaces_a_bundle_whole(tmp_path):
    write(tmp_path / "b", b"old")
    with BundleWriter(tmp_path / "b", force=True) as writer:
        writer.add("int8", "cpu", b"new")
        assert read_bundle(tmp_path / "b").files[0].path == "float.onnx"  # readable until the last moment
        commit(writer)
    assert set(content(tmp_path)) == {"b/int8-cpu.onnx", f"b/{MANIFEST}"}


def test_this_kernel_exchanges_folders(tmp_path):
    if sys.platform != "linux":
        pytest.skip("renameat2 is a Linux system call")
    (tmp_path / "a" / "one").mkdir(parents=True)
    (tmp_path / "b" / "two").mkdir(parents=True)
    if not bundle_writer._exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot exchange two folders")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")) == ["a/two", "b/one"]


def test_a_bundle_is_replaced_only_with_force(tmp_path):
    write(tmp_path / "b", b"old")
    before = content(tmp_path)
    with pytest.raises(BundleError, match="--force"):
        write(tmp_path / "b", b"new")
    assert content(tmp_path) == before


def test_a_damaged_bundle_can_be_replaced(tmp_path):
    write(tmp_path / "b", b"old")
    (tmp_path / "b" / MANIFEST).write_text("{")
    assert write(tmp_path / "b", b"new", force=True).files[0].size_bytes == 3


@pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt(), SystemExit(1)])
def test_whatever_happens_in_the_middle_the_old_bundle_stays(tmp_path, error):
    write(tmp_path / "b", b"old")
    before = content(tmp_path)
    with pytest.raises(type(error)):
        fails_in_the_middle(tmp_path / "b", error)
    assert content(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b"]


def test_missing_parent_folders_are_made_and_taken_away_on_failure(tmp_path):
    assert write(tmp_path / "x" / "y" / "b", b"1").path == tmp_path / "x" / "y" / "b"
    with pytest.raises(KeyboardInterrupt):
        fails_in_the_middle(tmp_path / "p" / "q" / "b", KeyboardInterrupt())
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_an_interrupt_between_two_renames_brings_the_old_bundle_back(tmp_path, monkeypatch):
    write(tmp_path / "b", b"old")
    before = content(tmp_path)
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if self.name == ".b.new":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(bundle_writer, "_exchange", lambda one, two: False)
    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "b", b"new", force=True)
    assert content(tmp_path) == before


def test_a_kill_between_two_renames_is_explained_and_mended(tmp_path):
    write(tmp_path / "b", b"old")
    before = content(tmp_path)
    (tmp_path / "b").rename(tmp_path / ".b.old")
    with pytest.raises(BundleError, match=r"former content is in .*\.b\.old"):
        read_bundle(tmp_path / "b")
    with pytest.raises(BundleError, match="--force"):  # it is back, and protected again
        write(tmp_path / "b", b"new")
    assert content(tmp_path) == before


def test_leftovers_of_a_killed_writer_are_tidied(tmp_path):
    write(tmp_path / "b", b"old")
    shutil.copytree(tmp_path / "b", tmp_path / ".b.new")
    shutil.copytree(tmp_path / "b", tmp_path / ".b.old")
    (tmp_path / ".b.lock").write_text("1\n")
    write(tmp_path / "b", b"new", force=True)
    assert content(tmp_path)["b/float.onnx"] == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_foreign_folder_with_the_name_of_a_leftover_is_not_removed(tmp_path):
    (tmp_path / ".b.new").mkdir()
    (tmp_path / ".b.new" / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match="not a leftover of rctk"):
        write(tmp_path / "b", b"new")
    assert content(tmp_path) == {".b.new/thesis.tex": b"years of work"}


@pytest.mark.parametrize(
    "names",
    [["thesis.tex"], [MANIFEST], [MANIFEST, "float.onnx", "notes.txt"], ["float.onnx"], [MANIFEST, "index.html"]],
)
def test_what_is_not_a_bundle_is_never_removed(tmp_path, names):
    (tmp_path / "b").mkdir()
    for name in names:
        (tmp_path / "b" / name).write_text("mine")
    before = content(tmp_path)
    with pytest.raises(BundleError, match="stays as it is"):
        write(tmp_path / "b", b"new", force=True)
    assert content(tmp_path) == before


def test_a_file_in_the_place_of_the_bundle_is_never_removed(tmp_path):
    (tmp_path / "b").write_text("mine")
    with pytest.raises(BundleError, match="stays as it is"):
        write(tmp_path / "b", b"new", force=True)
    assert content(tmp_path) == {"b": b"mine"}


@pytest.mark.parametrize("path", ["/", "."])
def test_folders_that_hold_other_things_are_refused(path):
    with pytest.raises(BundleError, match="stays as it is"):
        write(Path(path), b"new", force=True)


def test_what_appears_while_the_bundle_is_written_is_not_overwritten(tmp_path):
    with BundleWriter(tmp_path / "b") as writer:
        writer.add("float", "", b"new")
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "thesis.tex").write_text("mine")
        with pytest.raises(BundleError, match="stays as it is"):
            commit(writer)
    assert content(tmp_path) == {"b/thesis.tex": b"mine"}


def test_an_empty_folder_becomes_the_bundle(tmp_path):
    (tmp_path / "b").mkdir()
    assert write(tmp_path / "b", b"new").files[0].sha256


def test_a_link_to_a_bundle_stays_a_link(tmp_path):
    write(tmp_path / "real", b"old")
    (tmp_path / "link").symlink_to("real")
    assert write(tmp_path / "link", b"new", force=True).path == tmp_path / "link"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "float.onnx").read_bytes() == b"new"


def test_a_file_beyond_two_gigabytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_writer, "MAX_FILE_BYTES", 3)
    with pytest.raises(BundleError, match=r"float\.onnx would have 4 bytes"):
        write(tmp_path / "b", b"four")


@pytest.mark.parametrize("target", ["../x", "a/b", "CPU", "a b", ".."])
def test_a_target_that_is_no_plain_name_is_refused(tmp_path, target):
    with pytest.raises(BundleError), BundleWriter(tmp_path / "b") as writer:
        writer.add("int8", target, b"x")
    assert list(tmp_path.iterdir()) == []


def test_adding_twice_or_nothing_is_an_error(tmp_path):
    with BundleWriter(tmp_path / "b") as writer:
        with pytest.raises(BundleError, match="nothing was added"):
            commit(writer)
        writer.add("int8", "cpu", b"x")
        with pytest.raises(BundleError, match="twice"):
            writer.add("int8", "cpu", b"y")


# In processes of their own: each prints "ready" while it holds a half-written bundle, or the error it got.

CHILD = """
import os, resource, sys, time
from pathlib import Path
from rctk_export.bundle_writer import BundleWriter
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import BundleError
path, size, wait, setup = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
exec(setup)
try:
    with BundleWriter(path, force=True) as writer:
        writer.add("float", "", bytes(size))
        print("ready", flush=True)
        time.sleep(wait)
        writer.commit(name="m", input=InputSpec(channels=1, height=8, width=8), classes=(), model={}, calibration={})
except BundleError as error:
    print(error)
    sys.exit(2)
"""


def child(path: Path, *, size: int = 10, wait: float = 0, setup: str = "") -> list[str]:
    return [sys.executable, "-c", CHILD, str(path), str(size), str(wait), setup]


def expect_failure(command: list[str], words: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (2, ""), done.stderr
    assert words in done.stdout
    assert "untouched" in done.stdout


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_writer_leaves_the_old_bundle_and_no_obstacle(tmp_path, how):
    write(tmp_path / "b", b"old")
    before = content(tmp_path)
    with subprocess.Popen(child(tmp_path / "b", wait=60), stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(how)
        process.wait(30)
    assert process.returncode == -how
    assert read_bundle(tmp_path / "b").files[0].size_bytes == 3
    if how == signal.SIGINT:  # nobody can tidy after SIGKILL but the next writer
        assert content(tmp_path) == before
    write(tmp_path / "b", b"newer", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_second_writer_is_told_who_writes(tmp_path):
    with subprocess.Popen(child(tmp_path / "b", wait=0.5), stdout=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(BundleError, match=rf"being written by another process \(pid {process.pid}\)"):
            write(tmp_path / "b", b"second")
    assert process.returncode == 0
    assert read_bundle(tmp_path / "b").files[0].size_bytes == 10  # the first was not disturbed


def test_a_second_writer_in_the_same_process_is_refused_too(tmp_path):
    with BundleWriter(tmp_path / "b"), pytest.raises(BundleError, match=str(os.getpid())):
        write(tmp_path / "b", b"second")


def test_a_file_size_limit_leaves_the_old_bundle(tmp_path):
    write(tmp_path / "b", b"old")
    before = content(tmp_path)
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))"
    expect_failure(child(tmp_path / "b", size=100_000, setup=limit), "File too large")
    assert content(tmp_path) == before


def on_a_tiny_disk(disk: Path, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a shell script with 256 KiB mounted at ``disk`` for this script alone; ``$0`` is the disk."""
    disk.mkdir()
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare to mount a tiny disk")
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    mount = 'mount -t tmpfs -o size=256k none "$0" && echo mounted || exit 77; '
    done = subprocess.run(
        [*command, mount + script, str(disk), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if not done.stdout.startswith("mounted\n"):
        pytest.skip(f"cannot mount a tiny disk here: {done.stderr.strip()}")
    return done


def test_a_full_disk_leaves_the_old_bundle(tmp_path):
    write(tmp_path / "old", b"old")
    script = (
        'old=$1; cp -r "$old" "$0/b"; shift; "$@"; echo "code $?"; ls -A "$0"; cmp "$0/b/float.onnx" "$old/float.onnx"'
    )
    command = child(tmp_path / "disk" / "b", size=10_000_000)
    done = on_a_tiny_disk(tmp_path / "disk", script, tmp_path / "old", *command)
    _, message, code, *names = done.stdout.splitlines()
    assert "No space left" in message
    assert "free some space" in message
    assert (code, names, done.returncode, done.stderr) == ("code 2", ["b"], 0, "")


def test_a_mount_point_is_named_as_such(tmp_path):
    done = on_a_tiny_disk(tmp_path / "disk", '"$@"', *child(tmp_path / "disk"))
    assert done.returncode == 2
    assert "mount point; name a folder inside it" in done.stdout


def test_a_folder_without_write_permission_is_one_line():
    with tempfile.TemporaryDirectory() as name:  # tmp_path lies in a folder that only its owner may enter
        folder = Path(name)
        (folder / "locked").mkdir(mode=0o555)
        folder.chmod(0o755)
        setup = "os.getuid() or os.setuid(65534)"  # root may write everywhere, nobody may not
        expect_failure(child(folder / "locked" / "b", setup=setup), "Permission denied")
        expect_failure(child(folder / "locked" / "c" / "b", setup=setup), "may write to")
        assert list((folder / "locked").iterdir()) == []
