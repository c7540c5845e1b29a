"""Attacks on a served model: the same result as in process, also when the server is killed on the way."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("tritonclient.http")

SQUARE = ("--attack", "square:queries=60", "--eps", "0.08", "--samples", 96, "--batch-size", 3, "--input", "1x8x8")
"""Four groups of eight batches."""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def serve(bundle):
    """Start servers at a port; they end with the test."""
    started = []

    def call(port):
        command = [sys.executable, "-c", "from rctk.cli.main import main\nmain()", "serve", bundle, "--port", port]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([str(part) for part in command], env=environment, stdout=subprocess.PIPE, text=True)
        started.append(process)
        while "Ctrl-C" not in process.stdout.readline():
            assert process.poll() is None
        return process

    yield call
    for process in started:
        process.kill()
        process.communicate()


def only_record(folder):
    (line,) = (folder / "records.jsonl").read_text().splitlines()
    values = json.loads(line)["values"]
    return {key: value for key, value in values.items() if key != "seconds"}


def kept(folder):
    return sorted((folder / "unfinished").rglob("*.npz")) if (folder / "unfinished").exists() else []


def test_a_server_that_is_killed_costs_no_finished_batch(rctk, start, serve, bundle, digits, tmp_path):
    port = free_port()
    url, data = f"http://127.0.0.1:{port}/bundle", ("--data", digits)
    first = serve(port)
    assert rctk("attack", url, *SQUARE, *data, "--out", "whole").code == 0
    assert rctk("attack", bundle, *SQUARE[:-2], *data, "--out", "here").code == 0

    running = start("attack", url, *SQUARE, *data, "--out", "cut", "--engine", "remote:retries=1")
    deadline = time.monotonic() + 60
    while len(kept(tmp_path / "cut")) < 2 and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    first.kill()
    _, error = running.communicate(timeout=60)
    assert running.returncode == 2, error
    lines = [line for line in error.splitlines() if line.startswith("rctk: ")]
    assert len(lines) == 1
    assert "give the same command again" in lines[0]
    finished = len(kept(tmp_path / "cut"))
    assert 2 <= finished < 4
    assert not (tmp_path / "cut" / "records.jsonl").exists()
    assert rctk("attack", url, *SQUARE, *data, "--out", "cut", "--engine", "remote:retries=0").code == 2
    assert len(kept(tmp_path / "cut")) == finished

    serve(port)
    done = rctk("attack", url, *SQUARE, *data, "--out", "cut", "--engine", "remote:retries=1")
    assert done.code == 0, done.err
    assert not kept(tmp_path / "cut")
    whole, cut, here = (only_record(tmp_path / name) for name in ("whole", "cut", "here"))
    assert whole == cut == here
    assert whole["robust_accuracy"] < whole["clean_accuracy"]


def test_a_protocol_names_the_tiers_that_need_a_twin(rctk, serve, digits, float_onnx, tmp_path):
    port = free_port()
    serve(port)
    url = f"http://127.0.0.1:{port}/bundle"
    done = rctk("attack", url, "--input", "1x8x8", "--data", digits, "--samples", 60, "--protocol", "quick")
    assert done.code == 0, done.err
    assert "tier transfer-twin did not run: no twin" in done.out
    assert "tier transfer-float did not run: no float parent" in done.out
    gated = ("--attack", "apgd-ce:steps=5", "--attack", "square:queries=20", "--max-drop", 0.2)
    done = rctk("compare", url, "--input", "1x8x8", "--float", float_onnx, "--data", digits, *gated)
    assert done.code == 0, done.err
    assert "served, remote" in done.out
    assert json.loads((tmp_path / "runs/records.jsonl").read_text().splitlines()[-1])["subject"]["engine"] == "remote"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("http://127.0.0.1:9/net",), "add --input"),
        (("http://127.0.0.1:9/net", "--input", "1x8x8", "--target", "cpu"), "--target chooses a file of a bundle"),
        (("http://127.0.0.1:9", "--input", "1x8x8"), "names no model"),
        (("BUNDLE", "--engine", "remote"), "needs the address of a server"),
        (("BUNDLE", "--engine", "remote:url=http://127.0.0.1:9/n,retries=0"), "see that it runs"),
    ],
)
def test_what_is_missing_is_one_line(rctk, bundle, digits, arguments, text):
    given = [bundle if part == "BUNDLE" else part for part in arguments]
    assert text in rctk("attack", *given, "--data", digits, "--attack", "square:queries=1").refusal


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--port", 99999), "a port is a number"),
        (("--queue", 0), "queue must be 1 or more"),
        (("--key", "key.pem"), "both --certificate and --key"),
        (("--token-file", "none"), "cannot read the token"),
        (("--host", "256.1.1.1"), "cannot listen at"),
        (("--engine", "onnxruntime:threads=0"), "threads must be"),
    ],
)
def test_serve_refuses_in_one_line(rctk, bundle, flags, text):
    assert text in rctk("serve", bundle, *flags).refusal


def test_a_port_that_is_taken(rctk, bundle):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert "choose another --host or --port" in rctk("serve", bundle, "--port", listener.getsockname()[1]).refusal
