import json
import shutil
import signal
import time
from pathlib import Path

import pytest

from rctk.records import read_records

BUNDLE = Path(__file__).parents[2] / "device" / "data" / "bundle"
FAST = "data: digits:test\nsamples: 40\neps: 0.1\ncalibration: digits:train\n"
PTQ = "{name: ptq, target: cpu, calibration-samples: 64, check-samples: 32}"


@pytest.fixture
def study(rctk, tmp_path, checkpoint):
    """Write a study of a small net or of a trained bundle, and run it with further flags."""
    shutil.copytree(BUNDLE, tmp_path / "given")
    shutil.copy(checkpoint, tmp_path / "net.pt")

    def call(text, *flags):
        (tmp_path / "s.yaml").write_text(text)
        return rctk("study", "s.yaml", "--no-html", *flags)

    return call


def records(folder="STUDY-s"):
    return [record.as_dict() for record in read_records(Path(folder))]


def timeless(record):
    values = {key: value for key, value in record["values"].items() if key != "seconds"}
    return {**{key: record[key] for key in ("kind", "subject", "settings", "versions")}, "values": values}


def test_a_cell_measures_what_the_single_command_measures(study, rctk):
    done = study(f"{FAST}models: [given]\nattacks: [square:queries=20]\nseeds: [3]")
    assert done.code == 0, done.err
    flags = "--on float --on twin --on engine --data digits:test --samples 40 --eps 0.1 --seed 3 --out alone"
    assert rctk("attack", "given", "--attack", "square:queries=20", *flags.split()).code == 0
    assert [timeless(record) for record in records()] == [timeless(record) for record in records("alone")]
    assert {record["study"]["attack"] for record in records()} == {"square:queries=20"}


def test_what_is_finished_is_not_run_again_and_a_new_attack_alone_runs(study):
    text = f"{FAST}models: [given]\nattacks: [noise, square:queries=%d]"
    assert "2 to run" in study(text % 5).out
    before = records()
    again = study(text % 5)
    assert "nothing to run" in again.out
    assert records() == before
    changed = study(text % 6)
    assert "1 finished, 1 to run" in changed.out
    assert [r["time"] for r in records() if r["study"]["attack"] == "noise"] == [
        r["time"] for r in before if r["study"]["attack"] == "noise"
    ]
    assert "nothing to run" in study(text % 5).out  # what was measured before is still there


def test_methods_seeds_and_times_are_rows_of_one_table(study):
    done = study(
        f"{FAST}models: [net.pt]\nattacks: [noise]\nseeds: [0, 1]\n"
        "bench: {calls: 5, warmup: 1, rounds: 1, memory: no}\n"
        f"gate: 0.05\nmethods:\n  - {PTQ}\n"
    )
    assert done.code == 3, done.err
    kinds = [record["kind"] for record in records()]
    assert [kinds.count(kind) for kind in ("export", "attack", "compare", "bench")] == [2, 6, 2, 4]
    row = next(line for line in done.out.splitlines() if line.startswith("net "))
    assert "(2 seeds)" in row
    assert "KiB" in row
    assert "not enough samples, not enough samples" in row


def test_a_cell_that_fails_is_named_and_the_others_go_on(study):
    done = study(f"{FAST}models: [given]\nattacks: [noise]\nengines: [onnxruntime, tensorrt]")
    assert done.code == 2
    assert done.refusal.startswith("rctk: 1 of 2 cells failed: attack given, tensorrt, seed 0: noise (")
    assert {record["subject"]["engine"] for record in records()} == {"float", "twin", "onnxruntime"}
    again = study(f"{FAST}models: [given]\nattacks: [noise]\nengines: [onnxruntime, tensorrt]")
    assert "1 finished, 1 to run" in again.out  # a failed cell is tried again


def test_a_dry_run_leaves_nothing_and_only_keeps_what_a_cell_needs(study, tmp_path):
    text = f"{FAST}models: [net.pt]\nattacks: [noise, square:queries=5]\nmethods: [{PTQ}]"
    done = study(text, "--dry-run", "--only", "SQUARE")
    assert "2 cells (1 export, 1 attack), 0 finished, 2 to run" in done.out
    assert "rctk attack STUDY-s/bundles/net.ptq.seed0-" in done.out
    assert not (tmp_path / "STUDY-s").exists()
    assert "none of 3 cells" in study(text, "--only", "fgsm").refusal


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modles: [given]", "line 1, modles: unknown key 'modles'; did you mean 'models'?"),
        ("models: [none.pt]", "line 1, models[0]: there is no file or folder none.pt; check the path"),
        (
            "models: [given]\nattacks: [noise, sqare]",
            "line 2, attacks[1]: unknown attack 'sqare'; did you mean 'square'?",
        ),
        ("models: [given]\nattacks:\n - square:steps=3", "line 3, attacks[0]: unknown setting of square 'steps'"),
        (
            "models: [given]\nattacks:\n - protocol: fast\ndata: digits:test",
            "line 3, attacks[0].protocol: unknown protocol",
        ),
        ("models: [given]\neps: -1\nattacks: [noise]\ndata: digits:test", "line 2, eps: eps must be a positive number"),
        ("models: [given]\nnorm: l7", 'line 2, norm: invalid value "l7"'),
        ("models: [given]\nengines: [onxruntime]", "line 2, engines[0]: unknown engine 'onxruntime'"),
        ("models: [given]\nseeds: [0, x]", "line 2, seeds[1]: a seed is a whole number"),
        ("models: [given]\ndata: nothing:test\nattacks: [noise]", "line 2, data: unknown data set 'nothing'"),
        ("models: [given]\nattacks: [noise]", "there are no images to attack; add `data: NAME:test`"),
        (
            "models: [given]\non: [float, twim]\ndata: digits:test\nattacks: [noise]",
            "line 2, on: on: unknown form 'twim'",
        ),
        (
            "models: [given]\non: [engine]\ndata: digits:test\nattacks: [disagreement]",
            "disagreement compares two forms and got engine; name two",
        ),
        ("models: [net.pt]\nmethods:\n - name: a\n", "line 3, methods[0]: there are no images to calibrate with"),
        (
            "models: [net.pt]\ncalibration: digits:train\nmethods:\n - name: a\n   steps: [quant.equalise]",
            "line 5, methods[0].steps[0]: unknown step 'quant.equalise'",
        ),
        (
            "models: [net.pt]\ncalibration: digits:train\nmethods:\n - name: a\n   calibrator: minimax",
            "line 5, methods[0].calibrator: unknown calibrator 'minimax'",
        ),
        ("models: [given]\nmodels: [net.pt]", "line 2, models: the key models stands twice"),
        ("models: [given, given]", "line 1, models[1]: the name 'given' stands twice"),
        ("models: [given]\nbench: {batch: 1, call: 3}", "line 2, bench.call: unknown key 'call'"),
        ("models: [given]\ngate: 2\nattacks: [noise]\ndata: digits:test", "line 2, gate"),
        ("models: [given", "is not YAML"),
        ("", "is empty"),
        ("- a", "expected keys with values, found a list"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(study, text, said, tmp_path):
    refusal = study(text).refusal
    assert said in refusal
    assert refusal.startswith("rctk: s.yaml ")
    assert not (tmp_path / "STUDY-s").exists()


def test_a_folder_that_is_no_study_is_left_alone(study):
    assert "given holds something that is no study" in study("models: [given]", "--out", "given").refusal


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_stopped_study_goes_on_with_the_same_result(study, start, tmp_path, number, code):
    text = f"{FAST}models: [given]\nattacks: [noise, square:queries=%s]"
    (tmp_path / "s.yaml").write_text(text % 300_000)
    process = start("study", "s.yaml", "--no-html")
    cells, limit = tmp_path / "STUDY-s" / "cells", time.monotonic() + 60
    while not list(cells.glob("*.json")) and time.monotonic() < limit:
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == code
    kept = json.loads(next(iter(cells.glob("*.json"))).read_text())
    done = study(text % 5)
    assert "1 finished, 1 to run" in done.out
    found = {record["study"]["attack"]: record for record in records()}
    assert found["noise"]["time"] == kept["result"]["records"][-1]["time"]
    assert set(found) == {"noise", "square:queries=5"}


def test_cells_in_processes_of_their_own_give_the_same(study):
    text = f"{FAST}models: [given]\nattacks: [noise, square:queries=5]"
    assert study(text, "--out", "here").code == 0
    done = study(text, "--out", "apart", "--jobs", "2")
    assert done.code == 0, done.err
    assert "cell 2 of 2" in done.err
    assert [timeless(record) for record in records("here")] == [timeless(record) for record in records("apart")]
