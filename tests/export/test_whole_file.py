from __future__ import annotations

import os

import pytest

from rctk_export.whole_file import write_whole


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"a longer content")
    with path.open("rb") as reader:
        write_whole(path, b"new")
        assert reader.read() == b"a longer content"  # whoever had it open sees no half of each
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_goes_wrong_leaves_the_earlier_file_and_no_other(tmp_path, monkeypatch, error):
    path = tmp_path / "a"
    path.write_bytes(b"earlier")

    def broken(_descriptor):
        raise error

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(type(error)) as caught:
        write_whole(path, b"new")
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]
    assert getattr(caught.value, "filename", str(path)) == str(path)


def test_a_link_stays_one(tmp_path):
    (tmp_path / "real").write_bytes(b"earlier")
    (tmp_path / "link").symlink_to("real")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_pipe_is_written_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_whole(tmp_path / "pipe", b"new")
    assert os.read(reader, 10) == b"new"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()
