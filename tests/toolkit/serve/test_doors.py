"""Token, TLS, loopback, and a queue that has an end."""

from __future__ import annotations

import shutil
import subprocess
import threading
from dataclasses import replace

import numpy as np
import pytest

from rctk.serve.served import RefusedError, Served
from rctk.serve.settings import ServeSettings
from rctk_export.engines import ENGINES
from rctk_kernels.errors import EngineError, OptionError

pytest.importorskip("uvicorn")
pytest.importorskip("tritonclient.http")
TOKEN = "a-token-of-the-tests"


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_token_is_asked_for_and_stays_out_of_messages(start, monkeypatch, tmp_path, known, scheme):
    source, images, logits = known
    server = start("--port", 0, "--grpc-port", 0, token=TOKEN)
    settings = ENGINES.build(f"remote:url={getattr(server, scheme)}")
    for wrong in ("", "another"):
        monkeypatch.setenv("RCTK_TOKEN", wrong)
        with pytest.raises(EngineError, match="wants its token") as told:
            settings.open(source)
        assert TOKEN not in str(told.value)
    monkeypatch.setenv("RCTK_TOKEN", "")
    (tmp_path / "token").write_text(TOKEN + "\n")
    monkeypatch.setenv("RCTK_TOKEN_FILE", str(tmp_path / "token"))
    with settings.open(source) as engine:
        assert np.array_equal(engine.predict(images), logits)
    assert TOKEN not in repr(settings)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A certificate of our own and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate of this test")
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_tls_with_a_certificate_that_is_trusted_and_without(start, monkeypatch, pair, known, scheme):
    (certificate, key), (source, images, logits) = pair, known
    server = start("--port", 0, "--grpc-port", 0, "--certificate", certificate, "--key", key)
    url = getattr(server, scheme)
    assert url.startswith(f"{scheme}s://")
    monkeypatch.delenv("RCTK_CA", raising=False)
    with pytest.raises(EngineError):
        ENGINES.build(f"remote:url={url},retries=0,timeout=5").open(source)
    monkeypatch.setenv("RCTK_CA", str(certificate))
    with ENGINES.build(f"remote:url={url}").open(source) as engine:
        assert np.array_equal(engine.predict(images), logits)


def test_loopback_is_the_default():
    assert ServeSettings().local
    assert not ServeSettings(host="0.0.0.0").local


@pytest.mark.parametrize("wrong", [{"queue": 0}, {"port": 70000}, {"max_batch": 0}])
def test_limits_are_checked(wrong):
    with pytest.raises(OptionError):
        ServeSettings(**wrong)


def test_tls_needs_both_files(tmp_path):
    with pytest.raises(OptionError, match="both"):
        ServeSettings(certificate=tmp_path / "cert.pem")


class Slow:
    """An engine that waits for a word."""

    def __init__(self):
        self.go, self.asked = threading.Event(), 0

    def open(self, _source):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        pass

    def predict(self, images):
        if self.asked:
            assert self.go.wait(20)
        self.asked += 1
        if np.isnan(images).any():
            raise EngineError("NaN")
        return np.zeros((len(images), 10), dtype=np.float32)


def test_the_queue_has_an_end_and_an_engine_that_fails_fails_one_request(source, images):
    slow = Slow()
    with Served("slow", replace(source, sha256="1" * 64), slow, "slow:key=1", 2) as served:
        assert served.describe()["platform"] == "rctk_slow"
        first = served.submit(images * np.float32(np.nan))
        while not first.running():
            pass
        waiting = [served.submit(images[:n]) for n in (1, 2)]
        with pytest.raises(RefusedError, match="2 requests wait already"):
            served.submit(images)
        assert waiting[0].cancel()  # its client left
        slow.go.set()
        with pytest.raises(RefusedError, match="NaN"):
            first.result(20)
        assert waiting[1].result(20).shape == (2, 10)
    assert slow.asked == 3


def test_an_engine_that_does_not_open_says_so(source, tmp_path):
    broken = replace(source, path=tmp_path / "no.onnx")
    with pytest.raises(EngineError, match="no model file"), Served("x", broken, ENGINES.build("onnxruntime"), "o", 2):
        pass
