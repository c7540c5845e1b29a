from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rctk.study.cell import Cell
from rctk.study.inputs import hashes_of_files, texts_in
from rctk.study.selection import chosen
from rctk.study.store import Result, Store
from rctk_kernels.errors import OptionError

EXPORT = Cell(
    kind="export",
    labels={"model": "m", "method": "ptq", "seed": 0},
    path="m.pt",
    words=("--seed=0",),
    facts={"model": 1},
)
LABELS = {"model": "m", "method": "ptq", "target": "cpu", "engine": "onnxruntime", "attack": "fgsm", "seed": 0}
ATTACK = Cell(kind="attack", labels=LABELS, words=("--attack=fgsm",), facts={"images": "a"}, needs=EXPORT)


def test_a_key_changes_with_everything_that_decides_the_result():
    others = [
        replace(ATTACK, words=("--attack=fgsm", "--eps=0.1")),
        replace(ATTACK, facts={"images": "b"}),
        replace(ATTACK, needs=replace(EXPORT, facts={"model": 2})),
        replace(ATTACK, kind="compare"),
        EXPORT,
    ]
    assert len({cell.key for cell in (ATTACK, *others)}) == 6
    assert replace(ATTACK).key == ATTACK.key


def test_a_command_line_measures_the_bundle_that_the_needed_cell_makes():
    export, attack = EXPORT.command(Path("S"), Path("w")), ATTACK.command(Path("S"), Path("w"))
    bundle = f"S/bundles/m.ptq.seed0-{EXPORT.key[:6]}"
    assert export == ["export", "m.pt", "--seed=0", f"--out={bundle}", "--force", "--records=w"]
    assert attack == ["attack", bundle, "--attack=fgsm", "--out=w"]


def test_files_in_settings_are_known_by_their_content(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("dense.pt").write_text("1")
    words = ["--arch=net.py:make", *texts_in([{"distill.kd": {"teacher": "dense.pt", "epochs": 1}}])]
    before = hashes_of_files(words)
    assert set(before) == {"dense.pt"}
    Path("dense.pt").write_text("2")
    Path("net.py").write_text("")
    after = hashes_of_files(words)
    assert set(after) == {"dense.pt", "net.py"}
    assert after["dense.pt"] != before["dense.pt"]


def test_a_filter_keeps_what_makes_the_bundle():
    other = replace(ATTACK, labels={**LABELS, "attack": "noise"})
    assert chosen([EXPORT, ATTACK, other], "FGSM") == (EXPORT, ATTACK)
    with pytest.raises(OptionError, match="none of 3 cells"):
        chosen([EXPORT, ATTACK, other], "pgd")


def test_only_a_cell_that_came_to_its_end_is_finished(tmp_path):
    store = Store(tmp_path)
    assert store.finished(ATTACK) is None
    store.begin(ATTACK)
    store.keep(ATTACK, Result(code=2, error="no such engine"))
    assert store.finished(ATTACK) is None
    assert store.result(ATTACK).error == "no such engine"
    (tmp_path / "cells" / f"{ATTACK.key}.json").write_text("{half a li")
    assert store.result(ATTACK) is None  # what a crash left is no result


def test_a_bundle_that_was_taken_away_is_made_again(tmp_path):
    store = Store(tmp_path)
    (store.begin(EXPORT) / "records.jsonl").write_text("")
    store.keep(EXPORT, Result(code=0))
    assert store.result(EXPORT) is not None
    assert store.finished(EXPORT) is None


def test_a_gate_that_does_not_hold_is_a_result(tmp_path):
    store, gate = Store(tmp_path), replace(ATTACK, kind="compare")
    (store.begin(gate) / "records.jsonl").write_text("")
    store.keep(gate, Result(code=1))
    assert store.finished(gate) is not None
