"""`rctk serve` as tritonclient's own clients see it, and as no client should use it."""

from __future__ import annotations

import http.client
import json
import signal
from dataclasses import replace
from urllib.parse import urlsplit

import numpy as np
import pytest

from rctk_export.engines import ENGINES
from rctk_kernels.errors import EngineError

pytest.importorskip("uvicorn")
triton_http = pytest.importorskip("tritonclient.http")
triton_grpc = pytest.importorskip("tritonclient.grpc")


@pytest.fixture(params=["http", "grpc"])
def client(request, server):
    module = {"http": triton_http, "grpc": triton_grpc}[request.param]
    with module.InferenceServerClient(urlsplit(getattr(server, request.param)).netloc) as opened:
        yield module, opened


def test_health_and_metadata(client, source):
    _, opened = client
    assert opened.is_server_live()
    assert opened.is_server_ready()
    assert opened.is_model_ready("bundle")
    assert not opened.is_model_ready("other")
    as_json = {} if "http" in type(opened).__module__ else {"as_json": True}
    assert opened.get_server_metadata(**as_json)["name"] == "rctk"
    told = opened.get_model_metadata("bundle", **as_json)
    assert told["versions"] == [source.sha256[:12]]
    assert told["inputs"][0]["name"] == "images"
    assert [int(size) for size in told["inputs"][0]["shape"]] == [-1, 1, 8, 8]
    assert [int(size) for size in told["outputs"][0]["shape"]] == [-1, 10]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_tensors_travel_as_bytes_and_as_json(server, images, logits, binary_in, binary_out):
    entry = triton_http.InferInput("images", images.shape, "FP32")
    entry.set_data_from_numpy(images, binary_data=binary_in)
    wanted = None if binary_out is None else [triton_http.InferRequestedOutput("logits", binary_data=binary_out)]
    with triton_http.InferenceServerClient(urlsplit(server.http).netloc) as opened:
        result = opened.infer("bundle", [entry], outputs=wanted, request_id="seven")
    assert result.get_response()["id"] == "seven"
    assert np.array_equal(result.as_numpy("logits"), logits)


def test_grpc_tensors(server, images, logits):
    entry = triton_grpc.InferInput("images", images.shape, "FP32")
    entry.set_data_from_numpy(images)
    with triton_grpc.InferenceServerClient(urlsplit(server.grpc).netloc) as opened:
        result = opened.infer("bundle", [entry], request_id="seven")
    assert result.get_response().id == "seven"
    assert np.array_equal(result.as_numpy("logits"), logits)


@pytest.mark.parametrize(
    ("name", "shape", "kind", "text"),
    [
        ("pictures", (1, 1, 8, 8), "FP32", "takes one input"),
        ("images", (1, 1, 8, 9), "FP32", "has shape"),
        ("images", (1, 64), "FP32", "has shape"),
        ("images", (65, 1, 8, 8), "FP32", "more than 64"),
        ("images", (1, 1, 8, 8), "FP64", "is FP32"),
    ],
)
def test_other_tensors_are_refused_in_a_line(client, name, shape, kind, text):
    module, opened = client
    entry = module.InferInput(name, shape, kind)
    entry.set_data_from_numpy(np.zeros(shape, dtype=np.float64 if kind == "FP64" else np.float32))
    with pytest.raises(module.InferenceServerException, match=text):
        opened.infer("bundle", [entry])


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_the_engine_predicts_as_in_process(server, source, images, logits, scheme):
    url = getattr(server, scheme)
    with ENGINES.build(f"remote:url={url},batch=7").open(source) as engine:
        assert np.array_equal(engine.predict(images), logits)
        assert np.array_equal(engine.predict(np.asfortranarray(images)), logits)
        assert engine.predict(images[:0]).shape == (0, 10)


def test_json_tensors_are_the_same(server, source, images, logits):
    with ENGINES.build(f"remote:url={server.http},binary=false,batch=8").open(source) as engine:
        assert np.array_equal(engine.predict(images), logits)


def test_another_file_is_refused(server, source):
    with pytest.raises(EngineError, match=r"runs another file: expected 000000000000"):
        ENGINES.build(f"remote:url={server.http}").open(replace(source, sha256="0" * 64))


def test_a_larger_batch_than_the_server_takes_names_the_limit(server, source):
    with (
        ENGINES.build(f"remote:url={server.http},batch=100").open(source) as engine,
        pytest.raises(EngineError, match="100 images are more than 64; send fewer"),
    ):
        engine.predict(np.zeros((100, 1, 8, 8), dtype=np.float32))


def ask(server, body, path="/v2/models/bundle/infer", method="POST", **headers):
    connection = http.client.HTTPConnection(urlsplit(server.http).netloc, timeout=10)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def tensor(data, shape=(1, 1, 8, 8), **more):
    return json.dumps({"inputs": [{"name": "images", "datatype": "FP32", "shape": list(shape), "data": data, **more}]})


@pytest.mark.parametrize(
    ("body", "headers", "status", "text"),
    [
        (b"\x80\x04\x95", {}, 400, "not JSON"),
        ("[" * 100_000, {}, 413, "bytes"),
        ("[" * 10_000, {}, 400, "not JSON"),
        ("[]", {}, 400, "not a JSON object"),
        ('{"inputs": 3}', {}, 400, "list of tensors"),
        (tensor(["1"] * 64), {}, 400, "64 numbers"),
        (tensor([True] * 64), {}, 400, "64 numbers"),
        (tensor([1] * 63), {}, 400, "got 63"),
        (tensor([[1, 2], [3]]), {}, 400, "array of numbers"),
        (tensor([1e999] * 64), {}, 400, "no number of JSON"),
        (tensor([0] * 64, parameters={"binary_data_size": 256}), {}, 400, "takes 256 bytes"),
        (tensor([0] * 64, parameters={"shared_memory_region": "x"}), {}, 400, "does not offer"),
        (tensor([0] * 64, shape=(1, 1, 8.0, 8)), {}, 400, "whole numbers"),
        (tensor([0] * 64, shape=(10**9, 1, 8, 8)), {}, 413, "more than 64"),
        (tensor([0] * 64), {"Inference_Header_Content_Length": "-1"}, 400, "number of bytes"),
        (tensor([0] * 64), {"Inference_Header_Content_Length": "99999"}, 400, "the body has"),
        (tensor([0] * 64), {"Content_Encoding": "gzip"}, 400, "compressed"),
        (tensor([0] * 64)[:-1] + ', "outputs": [{"name": "secret"}]}', {}, 400, "the one output"),
    ],
)
def test_bad_requests_are_named_and_nothing_breaks(server, body, headers, status, text):
    found, told = ask(server, body, **headers)
    assert (found, text in told) == (status, True), told
    assert list(json.loads(told)) == ["error"]
    assert ask(server, tensor([0] * 64))[0] == 200


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/", "GET", 404),
        ("/v2/models/bundle/infer", "GET", 405),
        ("/v2/models/b%2F..%2Fundle", "GET", 404),
        ("/v2/models/bundle/versions/9", "GET", 404),
        ("/v2/health/live", "GET", 200),
    ],
)
def test_other_paths(server, path, method, status):
    assert ask(server, None, path, method)[0] == status


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_cleanly(start, number, code):
    server = start("--port", 0, "--grpc-port", 0)
    server.process.send_signal(number)
    _, error = server.process.communicate(timeout=20)
    assert server.process.returncode == code, error
    assert "Traceback" not in error
