import gzip
import hashlib
import socket
import struct
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from rctk.data import DATASETS, read_split
from rctk.data.download import PUBLISHED, Published, download
from rctk_kernels.errors import DataError


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


class Cut(Quiet):
    """Announces a hundred bytes, sends five, and hangs up."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"hello")


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Start real servers on this machine; the call returns an address and the folder it serves."""
    monkeypatch.setenv("no_proxy", "*")
    running = []

    def start(handler=Quiet):
        folder = tmp_path / f"served{len(running)}"
        folder.mkdir()
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/", folder

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


def md5(data):
    return hashlib.md5(data).hexdigest()


def idx(array):
    return gzip.compress(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())


def test_the_table_fits_the_data_sets():
    for name, published in PUBLISHED.items():
        assert set(published.files) == set(DATASETS[name].splits)
        assert all(address.endswith("/") for address in published.addresses)
        assert all(len(bytes.fromhex(sum_)) == 16 for files in published.files.values() for sum_ in files.values())


def test_a_missing_set_is_fetched_only_when_allowed(root, serve, monkeypatch):
    address, folder = serve()
    files = {
        "t10k-images-idx3-ubyte.gz": idx(np.full((2, 28, 28), 255, dtype=np.uint8)),
        "t10k-labels-idx1-ubyte.gz": idx(np.array([4, 2], dtype=np.uint8)),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    sums = {name: md5(data) for name, data in files.items()}
    monkeypatch.setitem(PUBLISHED, "mnist", Published(addresses=(address,), files={"test": sums}))
    with pytest.raises(DataError, match="or allow --download"):
        read_split("mnist")
    assert not (root / "mnist").exists()
    assert read_split("mnist", download=True).labels.tolist() == [4, 2]
    assert sorted(path.name for path in (root / "mnist").iterdir()) == sorted(files)
    (folder / "t10k-images-idx3-ubyte.gz").unlink()
    assert len(read_split("mnist", download=True)) == 2  # what is there is not fetched again


def test_the_next_address_is_tried(tmp_path, serve):
    (empty, _), (full, folder) = serve(), serve()
    (folder / "x").write_bytes(b"data")
    download([f"{empty}x", f"{full}x"], md5(b"data"), tmp_path / "deep" / "x")
    assert (tmp_path / "deep" / "x").read_bytes() == b"data"


def test_a_file_with_another_sum_is_not_kept(tmp_path, serve):
    address, folder = serve()
    (folder / "x").write_bytes(b"something else")
    with pytest.raises(DataError, match=f"MD5 {md5(b'something else')}, expected {md5(b'data')}.*put it into"):
        download([f"{address}x"], md5(b"data"), tmp_path / "new" / "x")
    assert not list((tmp_path / "new").iterdir())


def test_a_connection_that_breaks_leaves_nothing(tmp_path, serve):
    address, _ = serve(Cut)
    with pytest.raises(DataError, match="cannot download x"):
        download([f"{address}x"], md5(b"data"), tmp_path / "new" / "x")
    assert not list((tmp_path / "new").iterdir())


def test_an_address_that_cannot_be_reached_is_named_with_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/x"
        with pytest.raises(DataError, match=rf"{url}: .*refused.*put it into {tmp_path} by hand"):
            download([url], md5(b"data"), tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path, serve):
    address, folder = serve()
    (folder / "x").write_bytes(b"data")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write"):
        download([f"{address}x"], md5(b"data"), tmp_path / "file" / "x")


def test_sets_without_an_address_say_so(root):
    with pytest.raises(DataError, match="gtsrb:test cannot be downloaded by rctk; put its files into"):
        read_split("gtsrb", download=True)
