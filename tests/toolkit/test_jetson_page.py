"""Every command of docs/jetson.md exists with its flags, and runs here where ONNX Runtime can stand for TensorRT."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from rctk.cli.app import COMMANDS, make_app
from rctk.cli.main import run

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "device" / "data"
PAGE = (ROOT / "docs" / "jetson.md").read_text()
LINES = [shlex.split(line) for line in re.findall(r"^    rctk (.+)$", PAGE, re.MULTILINE)]
HERE = {"set.npz": "digits.npz", "tensorrt": "onnxruntime", "8/255": "0.08", "reference": "onnxruntime"}
NOT_HERE = {"build", "inspect", "serve"}


def names(lines):
    return [" ".join(line)[:60] for line in lines]


def here(line):
    """The same command with the bundle, the data and the runtime that this machine has."""
    quick = {
        "attack": "--samples 30",
        "compare": "--samples 30",
        "bench": "--calls 20 --no-memory",
        "report": "--no-html",
    }.get(line[0], "")
    words = " ".join(line).replace("--target tensorrt ", "").replace("--energy", "").replace("--cold-starts 3", "")
    words = words.replace("queries=1000", "queries=20").replace("--max-drop 0.02", "--max-drop 0.5")
    return [HERE.get(word, word) for word in f"{words} {quick}".split()]


RUN = [line for line in LINES if line[0] not in NOT_HERE and "--trtexec" not in line and "remote" not in " ".join(line)]


@pytest.mark.parametrize("line", LINES, ids=names(LINES))
def test_every_command_of_the_page_exists_with_its_flags(line):
    assert line[0] in COMMANDS
    _, bound, _ = make_app(line).parse_args(line, print_error=False, exit_on_error=False)
    assert bound.arguments or line == ["doctor"]


def test_the_page_walks_through_every_command_of_a_device():
    assert {line[0] for line in LINES} == {
        *("doctor", "build", "inspect", "bench", "attack", "replay", "compare", "merge", "report", "serve"),
    }


def test_the_words_of_the_page_are_those_of_the_program():
    files = [(ROOT / "toolkit" / "rctk" / name).read_text() for name in ("doctor_device.py", "doctor.py")]
    for name in re.findall(r"^\| `([a-z ]+)` \|", PAGE, re.MULTILINE):
        assert any(f'"{name}"' in text for text in files), name


def test_what_needs_no_tensorrt_runs_in_the_order_of_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(DATA / "bundle", "model-int8")
    shutil.copy(DATA / "digits.npz", ".")
    ran = []
    for line in RUN:
        if line[0] == "merge":
            shutil.copytree("runs", "runs-jetson")
        words = here(line)
        code = run(words)
        out, error = capsys.readouterr()
        assert code == 0, (words, out, error)
        ran.append(words[0])
    assert ran == ["doctor", "attack", "bench", "bench", "attack", "replay", "compare", "merge", "report"]
    records = [json.loads(line) for line in Path("all/records.jsonl").read_text().splitlines()]
    assert {record["kind"] for record in records} == {"attack", "bench", "compare"}
    assert any("replay" in record["values"] for record in records)
    assert "pause, ms" in Path("all/report.md").read_text()
