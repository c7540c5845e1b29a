"""The remote engine against servers that are slow, busy, changing, broken, or not of the protocol."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from rctk_export.engine import Source
from rctk_export.engines import ENGINES
from rctk_export.engines.remote_address import is_address, read_address
from rctk_export.engines.remote_link import token_headers
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import EngineError, OptionError

pytest.importorskip("tritonclient.http")
SPEC = InputSpec(channels=1, height=2, width=2)
PLAIN = {
    "name": "net",
    "versions": ["1"],
    "platform": "onnxruntime_onnx",
    "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, 1, 2, 2]}],
    "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 2]}],
}


class Behaviour:
    """What a server does: ``sum`` and its negative as scores, after what the test wants."""

    def __init__(self):
        self.told, self.version, self.answers = dict(PLAIN), "1", []
        self.batches, self.url = [], ""

    def infer(self, body):
        """Return status, answer and seconds to wait."""
        entry = body["inputs"][0]
        self.batches.append(entry["shape"][0])
        if self.answers:
            step = self.answers.pop(0)
            if step is not None:
                return step
        x = np.array(entry["data"], dtype=np.float64).reshape(entry["shape"][0], -1).sum(axis=1)
        data = np.stack([x, -x], axis=1).ravel().tolist()
        output = {"name": "scores", "datatype": "FP32", "shape": [len(x), 2], "data": data}
        return 200, {"model_name": "net", "model_version": self.version, "outputs": [output]}, 0


@pytest.fixture
def fake():
    behaviour = Behaviour()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            found = self.path == "/v2/models/net"
            self.reply(200 if found else 404, behaviour.told if found else {"error": f"no {self.path}"})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, told, wait = behaviour.infer(body)
            time.sleep(wait)
            if status == 0:  # hang up in the middle of the answer
                self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")
                self.close_connection = True
                return
            self.reply(status, told)

        def reply(self, status, told):
            text = told if isinstance(told, bytes) else json.dumps(told).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.send_header("content-type", "application/json")
            self.end_headers()
            with contextlib.suppress(BrokenPipeError):
                self.wfile.write(text)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    behaviour.url = f"http://127.0.0.1:{server.server_port}/net"
    yield behaviour
    server.shutdown()
    server.server_close()
    thread.join()


def opened(fake, spec=SPEC, **settings):
    more = "".join(f",{key}={value}" for key, value in settings.items())
    return ENGINES.build(f"remote:binary=false{more}").open(Source(path=Path(fake.url), input=spec))


def images(count):
    return np.arange(count * 4, dtype=np.float32).reshape(count, 1, 2, 2) / 64


def expected(x):
    total = x.sum(axis=(1, 2, 3))
    return np.stack([total, -total], axis=1)


@pytest.mark.parametrize(("count", "batches"), [(0, [1]), (1, [1]), (4, [4]), (10, [4, 4, 2])])
def test_batches_are_cut(fake, count, batches):
    with opened(fake, batch=4) as engine:
        assert np.allclose(engine.predict(images(count)), expected(images(count)))
    assert fake.batches == batches


def test_a_fixed_batch_is_filled_up(fake):
    fake.told = {**PLAIN, "inputs": [{**PLAIN["inputs"][0], "shape": [4, 1, 2, 2]}]}
    with opened(fake) as engine:
        assert np.allclose(engine.predict(images(6)), expected(images(6)))
    assert fake.batches == [4, 4]


def test_a_server_of_pixels_gets_pixels(fake):
    fake.told = {**PLAIN, "inputs": [{**PLAIN["inputs"][0], "datatype": "UINT8"}]}
    with opened(fake) as engine:
        assert engine.predict(np.full((1, 1, 2, 2), 0.5, dtype=np.float32))[0].tolist() == [512, -512]


def test_mean_and_std_are_applied_here_for_a_foreign_server(fake):
    spec = InputSpec(channels=1, height=2, width=2, mean=(0.5,), std=(0.25,))
    with opened(fake, spec) as engine:
        assert engine.predict(np.ones((1, 1, 2, 2), dtype=np.float32))[0].tolist() == [8, -8]


def test_a_server_of_ours_normalises_itself(fake):
    fake.told = {**PLAIN, "platform": "rctk_onnxruntime"}
    with pytest.raises(EngineError, match="leave --mean and --std away"):
        opened(fake, InputSpec(channels=1, height=2, width=2, mean=(0.5,)))


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ({"inputs": [{"name": "x", "datatype": "FP16", "shape": [-1, 1, 2, 2]}]}, "is FP16"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3, 2, 2]}]}, "mend --input"),
        ({"inputs": PLAIN["inputs"] * 2}, "2 inputs"),
        ({"outputs": [{"name": "y", "datatype": "INT64", "shape": [-1]}]}, "reads FP32 logits"),
        ({"inputs": None}, "not that of the protocol"),
        ({"inputs": [{"name": "x"}]}, "not that of the protocol"),
    ],
)
def test_another_model_is_refused_before_the_first_image(fake, told, text):
    fake.told = {**PLAIN, **told}
    with pytest.raises(EngineError, match=text):
        opened(fake)
    assert not fake.batches


def test_a_busy_server_and_a_broken_connection_are_tried_again(fake):
    fake.answers = [(429, {"error": "slowly"}, 0), (503, b"Service Unavailable", 0), (0, {}, 0)]
    with opened(fake, retries=3) as engine:
        assert np.allclose(engine.predict(images(2)), expected(images(2)))
    assert fake.batches == [2, 2, 2, 2]


def test_waits_grow(fake, monkeypatch):
    waits = []
    monkeypatch.setattr("rctk_export.engines.remote.time.sleep", waits.append)
    fake.answers = [(503, {"error": "busy"}, 0)] * 8
    with opened(fake, retries=7) as engine, pytest.raises(EngineError, match=r"HTTP 503, busy \(8 tries\); see that"):
        engine.predict(images(1))
    assert [wait for wait in waits if wait] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]


def test_a_hung_server_is_not_asked_twice(fake):
    fake.answers = [(200, {}, 1.0)]
    with opened(fake, timeout=0.2) as engine, pytest.raises(EngineError, match=r"no answer within 0\.2 s; .*timeout="):
        engine.predict(images(1))
    assert fake.batches == [1]


def test_a_model_that_is_exchanged_is_refused(fake):
    with opened(fake) as engine:
        engine.predict(images(1))
        fake.version = "2"
        with pytest.raises(EngineError, match="changed its model from version 1 to 2"):
            engine.predict(images(1))


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ((400, {"error": "bad\nshape"}, 0), "HTTP 400, bad shape"),
        ((404, {"error": "gone"}, 0), "check the name"),
        ((200, b"nonsense", 0), "not that of the protocol"),
        ((200, {"outputs": []}, 0), "lacks the output"),
        (
            (200, {"outputs": [{"name": "scores", "datatype": "FP32", "shape": [7, 2], "data": [0] * 14}]}, 0),
            "expected",
        ),
        ((200, {"outputs": [{"name": "scores", "datatype": "FP32", "shape": [1, 2], "data": [0] * 9}]}, 0), "protocol"),
    ],
)
def test_a_wrong_answer_is_one_line(fake, answer, text):
    fake.answers = [answer]
    with opened(fake) as engine, pytest.raises(EngineError, match=text) as told:
        engine.predict(images(1))
    assert "\n" not in str(told.value)
    assert fake.batches == [1]


def test_nobody_there_is_one_line():
    with pytest.raises(EngineError, match=r"http://127.0.0.1:9/net: .*\(1 tries\)"):
        ENGINES.build("remote:url=http://127.0.0.1:9/net,retries=0").open(Source(path=Path("x"), input=SPEC))


def test_every_thread_has_its_connection(fake):
    with opened(fake) as engine:
        found = []
        threads = [
            threading.Thread(target=lambda n=n: found.append(engine.predict(images(n)).shape)) for n in (1, 2, 3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(found) == [(1, 2), (2, 2), (3, 2)]


def test_addresses():
    assert read_address("https://h:1/base/v2/models/n/versions/3")[:] == ("https", "h:1/base", "n", "3")
    assert str(read_address(Path("http://h:1/n"))) == "http://h:1/n"
    assert not is_address("http.onnx")
    for wrong, text in [("http://h:1", "names no model"), ("http://u:p@h/n", "no password"), ("http://h/n?x", "query")]:
        with pytest.raises(OptionError, match=text):
            read_address(wrong)


def test_tokens(tmp_path):
    assert token_headers({}) == {}
    assert token_headers({"RCTK_TOKEN": "abc"}) == {"authorization": "Bearer abc"}
    with pytest.raises(OptionError, match="plain ASCII"):
        token_headers({"RCTK_TOKEN": "a\r\nb"})
    with pytest.raises(OptionError, match="RCTK_TOKEN_FILE names"):
        token_headers({"RCTK_TOKEN_FILE": str(tmp_path / "none")})


@pytest.mark.parametrize("wrong", ["batch=0", "timeout=0", "retries=-1", "url=x"])
def test_settings_are_checked(wrong):
    with pytest.raises(OptionError):
        ENGINES.build(f"remote:{wrong}")
