"""What `rctk train` says, keeps, resumes and refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from rctk.checkpoint import load_model
from rctk.cli.stop import Stop
from rctk.data import read_split
from rctk.machine import available_cpus

BASE = ("train", "--arch", "mlp:hidden=16", "--epochs", "2")
TRAIN = (*BASE, "--precision", "32")
SEVERAL = pytest.mark.skipif(
    not torch.distributed.is_available() or len(available_cpus()) < 2,
    reason="this torch cannot train on several devices, or there is one processor",
)


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
        (("--augment", "crop:padding=x"), "crop:padding must be a whole number such as 3, got 'x'"),
        (("--precision", "fp16", "--accelerator", "cpu"), "choose bf16 or 32 on a CPU"),
        (("--precision", "fp8"), "--precision"),
        (("--devices", "0"), "devices must be at least 1"),
        (("--devices", "1.5"), "'1.5' is not a whole number"),
        (("--devices", "100000", "--accelerator", "cpu"), "100000 processes on the CPU are asked for and this one may"),
        (("--batch-size", "0"), "batch_size must be at least 1, got 0"),
        (("--patience", "0"), "patience must be at least 1, got 0; leave it out"),
        (("--ema-decay", "2"), "averaging needs 0 < ema_decay < 1, got 2.0"),
        (("--milestones", "3"), "rising shares between 0 and 1"),
        (("--objective", "trades:beta=-1"), "trades:beta must be a number from 0 on"),
        (("--objective", "pgd-at:eps=8"), "write 8/255"),
        (("--seed", str(2**63)), "seed must be below 2**63"),
        (("--objective", "mart", "--augment", "mixup"), "leave mixup and cutmix out"),
    ],
)
def test_nonsense_is_refused_in_one_line(rctk, digits, tmp_path, flags, words):
    assert words in rctk(*BASE, "--data", digits, "-o", "m.pt", *flags).refusal
    assert not list(tmp_path.glob("*.pt"))


def test_places_beside_the_checkpoint_are_looked_at_before_training(rctk, digits, tmp_path):
    for name in ("m-last.pt", "m-resume.pt"):
        (tmp_path / name).mkdir()
        assert f"{name} is a folder" in rctk(*BASE, "--data", digits, "-o", "m.pt").refusal
        (tmp_path / name).rmdir()


def test_a_label_that_numbers_no_class_is_refused(rctk, tmp_path):
    images = np.zeros((4, 1, 8, 8), dtype=np.float32)
    np.savez(tmp_path / "far.npz", images=images, labels=np.array([0, 1, 2, 10**9]))
    refusal = rctk(*BASE, "--data", "far.npz", "-o", "m.pt").refusal
    assert "far.npz has label 1000000000, which is no class number; count classes from 0" in refusal


def test_training_on_test_images_has_to_be_said(rctk):
    refusal = rctk(*BASE, "--data", "digits", "-o", "m.pt").refusal
    assert "--data digits names no split; write digits:train to learn from training images" in refusal


def test_doubtful_validation_images_are_told_and_used(rctk, monkeypatch):
    few = ("--data", "digits:train", "--samples", "60", "-o", "m.pt")
    assert "note: " not in rctk(*TRAIN, *few).err
    done = rctk(*TRAIN, *few, "--validation", "digits:test")
    assert "note: digits:test holds test images, which choose the best epoch" in done.err
    assert "360 of digits:test" in done.out
    done = rctk(*TRAIN, *few, "--validation", "digits:train")
    assert "note: 60 of 1437 validation images are training images too" in done.err
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert "note: " not in rctk(*TRAIN, *few, "--validation", "digits:test").err


def test_the_last_lines_say_how_many_images_and_where_everything_is(rctk, digits):
    done = rctk(*TRAIN, "--data", digits, "-o", "m.pt")
    first, second = done.out.splitlines()
    assert first.endswith(f", 20 of {digits}; saved m.pt, the last epoch in m-last.pt")
    assert second == f"next: rctk export --int8 m.pt --calibration {digits}"


def test_a_signal_whose_exception_was_swallowed_ends_the_run_after_the_epoch(rctk, tmp_path, digits):
    stop = Stop()
    stop.number = signal.SIGINT
    before = signal.signal(signal.SIGINT, stop)
    try:
        done = rctk(*TRAIN, "--data", digits, "-o", "m.pt")
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.code == 130
    assert load_model(tmp_path / "m-last.pt").extra["epoch"]["number"] == 1
    assert "stopped after epoch 1; its checkpoint is there, the state to go on from is not yet" in done.err


def test_only_the_first_of_several_processes_speaks(rctk, digits, monkeypatch):
    import rctk.cli.train_command as command

    def fail(*_arguments, **_settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "train", fail)
    for rank, words in (("0", "no epoch is finished"), ("1", "")):
        monkeypatch.setenv("LOCAL_RANK", rank)
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stderr", sys.stderr)  # the command may replace it
            done = rctk(*TRAIN, "--data", digits, "-o", "m.pt")
        assert done.code == 130
        assert (words in done.err) if words else not done.err


@SEVERAL
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


@SEVERAL
def test_the_accuracy_of_two_processes_is_that_of_the_file(tmp_path, digits):
    """Each process meets other images, and with a batch of two BatchNorm statistics differ much."""
    layers = "nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8, momentum=1.0), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)"
    (tmp_path / "nets.py").write_text(f"from torch import nn\ndef net():\n    return nn.Sequential({layers})\n")
    more = ("--precision", "32", "--accelerator", "cpu", "--devices", "2", "--batch-size", "4", "--lr", "0.01")
    base = ("train", "--arch", "nets.py:net", "--epochs", "2", "--data", str(digits), "--validation", str(digits))
    command = [sys.executable, "-m", "rctk.cli.main", *base, *more, "-o", "m.pt"]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    loaded = load_model(tmp_path / "m-last.pt", arch=f"{tmp_path / 'nets.py'}:net")
    split = read_split(str(digits))
    with torch.no_grad():
        right = loaded.module(torch.from_numpy(split.images)).argmax(dim=1).numpy() == split.labels
    assert loaded.extra["epoch"]["clean_accuracy"] == pytest.approx(right.mean(), abs=1e-9)


def test_the_next_step_names_code_again(rctk, tmp_path, digits):
    net = "from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    (tmp_path / "nets.py").write_text(net)
    done = rctk("train", "--arch", "nets.py:net", "--epochs", "1", "--data", digits, "-o", "m.pt")
    assert f"next: rctk export --int8 m.pt --arch nets.py:net --calibration {digits}" in done.out, done.err
