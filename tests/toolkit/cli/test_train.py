"""What `rctk train` says, keeps, resumes and refuses."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from rctk.checkpoint import load_model

BASE = ("train", "--arch", "mlp:hidden=16", "--epochs", "2")
TRAIN = (*BASE, "--precision", "32")


def weights(path):
    return load_model(path).module.state_dict()


def records(folder):
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def test_every_flag_reaches_the_record(rctk, tmp_path, digits):
    flags = ("--objective", "trades:eps=0.1,steps=2,beta=3", "--augment", "crop:padding=1+mixup:alpha=1.4")
    more = ("--averaging", "ema", "--ema-decay", "0.9", "--schedule", "multistep", "--milestones", "0.5")
    last = ("--patience", "5", "--validation-eps", "8/255", "--channels-first", "--optimizer", "adamw", "--lr", "0.01")
    done = rctk(*TRAIN, "--data", digits, *flags, *more, *last, "-o", "m.pt")
    assert done.code == 0, done.err
    assert done.out.startswith("best epoch ")
    lines = [line for line in done.err.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in lines] == ["1/2", "2/2"]
    assert all("clean" in line and "under PGD" in line for line in lines)
    (record,) = records(tmp_path / "runs")
    settings = record["settings"]
    assert settings["objective"] == {
        "name": "Trades",
        "eps": 0.1,
        "steps": 2,
        "step_size": 0.225,
        "attack_mode": "eval",
        "beta": 3.0,
    }
    expected = {
        "augment": "crop:padding=1+mixup:alpha=1.4",
        "averaging": "ema",
        "schedule": "multistep",
        "patience": 5,
        "precision": "32",
        "accelerator": "cpu" if not torch.cuda.is_available() else "cuda",
        "channels_last": False,
    }
    assert {key: settings[key] for key in expected} == expected
    assert len(record["values"]["epochs"]) == 2


def test_a_stopped_run_says_how_to_go_on_and_ends_with_the_same_bits(rctk, tmp_path, digits, monkeypatch):
    assert rctk(*TRAIN, "--data", digits, "-o", "through.pt").code == 0
    import rctk.cli.train_command as command

    real = command.Checkpoints.__call__

    def stop(self, epoch, module):
        real(self, epoch, module)
        if epoch.number == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(command.Checkpoints, "__call__", stop)
        done = rctk(*TRAIN, "--data", digits, "-o", "m.pt")
    assert done.code == 130
    assert "stopped after epoch 2; the same command with --resume goes on after the last finished epoch" in done.err
    assert (tmp_path / "m-resume.pt").exists()
    other = rctk(*TRAIN, "--data", digits, "-o", "m.pt", "--resume", "--lr", "0.2")
    assert "m-resume.pt is of a run with lr 0.1, this one has 0.2" in other.refusal
    done = rctk(*TRAIN, "--data", digits, "-o", "m.pt", "--resume")
    assert done.code == 0, done.err
    assert "going on after epoch 1" in done.err
    for name in ("", "-last"):
        through, resumed = weights(tmp_path / f"through{name}.pt"), weights(tmp_path / f"m{name}.pt")
        assert all(torch.equal(value, resumed[key]) for key, value in through.items())
    assert not (tmp_path / "m-resume.pt").exists()


def test_resuming_nothing_is_refused_and_forgetting_to_resume_is_said(rctk, tmp_path, digits):
    assert "no m-resume.pt to go on from" in rctk(*TRAIN, "--data", digits, "-o", "m.pt", "--resume").refusal
    (tmp_path / "m-resume.pt").write_bytes(b"of an earlier run")
    done = rctk(*TRAIN, "--data", digits, "-o", "m.pt")
    assert done.code == 0
    assert "m-resume.pt of a stopped run is replaced" in done.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--augment", "cropp"), "did you mean 'aug.crop'"),
        (("--augment", "crop:padding=x"), "'x' is not a number"),
        (("--precision", "fp16", "--accelerator", "cpu"), "choose bf16 or 32 on a CPU"),
        (("--precision", "fp8"), "--precision"),
        (("--devices", "0"), "devices must be at least 1"),
        (("--devices", "1.5"), "'1.5' is not a whole number"),
        (("--patience", "0"), "patience must be at least 1"),
        (("--ema-decay", "2"), "0 < ema_decay < 1"),
        (("--milestones", "3"), "rising shares between 0 and 1"),
        (("--objective", "trades:beta=-1"), "trades:beta must not be negative"),
        (("--objective", "mart", "--augment", "mixup"), "leave mixup and cutmix out"),
    ],
)
def test_nonsense_is_refused_in_one_line(rctk, digits, tmp_path, flags, words):
    assert words in rctk(*BASE, "--data", digits, "-o", "m.pt", *flags).refusal
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch cannot train on several devices")
def test_two_processes_train_what_one_does(rctk, tmp_path, digits):
    """Without BatchNorm the mean of two gradients is the gradient of the whole batch, up to rounding."""
    base = (*TRAIN, "--data", str(digits), "--accelerator", "cpu", "--batch-size", "20")
    command = [sys.executable, "-m", "rctk.cli.main", *base, "--devices", "2", "-o", "two.pt", "--records", "two"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, **pipes) as process:
        alone = rctk(*base, "--devices", "1", "-o", "one.pt", "--records", "one")
        out, err = process.communicate(timeout=100)
    assert (alone.code, process.returncode) == (0, 0), err
    assert (alone.out.count("best epoch"), out.count("best epoch")) == (1, 1)
    assert [len(records(tmp_path / name)) for name in ("one", "two")] == [1, 1]
    one, two = weights(tmp_path / "one-last.pt"), weights(tmp_path / "two-last.pt")
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-4)
