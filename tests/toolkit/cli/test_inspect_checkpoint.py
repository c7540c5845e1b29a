"""``rctk inspect`` of model files of torch."""

from __future__ import annotations

import json

import pytest
import torch

from rctk.checkpoint import load_model


@pytest.fixture
def sparse(tmp_path, checkpoint):
    """A state dict whose second convolution is 2:4."""
    weights = load_model(checkpoint).module.state_dict()
    name = [key for key, value in weights.items() if value.ndim == 4][1]
    weights[name] = weights[name].clone()
    weights[name][:, ::2] = 0
    torch.save(weights, tmp_path / "sparse.pt")
    return name, weights[name]


READ = ("--arch", "digits-cnn", "--input", "1x8x8")


def test_a_checkpoint_is_counted(rctk, checkpoint):
    done = rctk("inspect", checkpoint)
    assert done.code == 0, done.err
    assert "checkpoint of digits-cnn: images 1x8x8, 10 classes" in done.out
    assert "76,522" in done.out
    found = json.loads(rctk("inspect", checkpoint, "--json").out)
    assert found["sha256"] == load_model(checkpoint).sha256
    assert sum(row["parameters"] for row in found["tensors"]) == found["parameters"] == 76522


def test_zeros_are_counted_and_their_pattern_is_named(rctk, sparse):
    name, weight = sparse
    found = json.loads(rctk("inspect", "sparse.pt", *READ, "--json").out)
    rows = {row["name"]: row for row in found["tensors"]}
    assert rows[name]["zeros"] == 0.5
    assert [key for key, row in rows.items() if row["two_of_four"]] == [name]
    biases = sum(row["zeros"] * row["parameters"] for key, row in rows.items() if key != name)
    assert found["parameters"] - found["nonzero"] == weight.numel() / 2 + round(biases)
    shown = rctk("inspect", "sparse.pt", *READ, "--layers").out
    assert "50.0%" in next(line for line in shown.splitlines() if name in line and "2:4" in line)


def test_the_steps_of_a_compressed_checkpoint_are_listed(rctk, checkpoint):
    step = ("--step", "prune.nm24")
    done = rctk("compress", checkpoint, "--data", "digits:train", "--samples", "60", *step, "-o", "small.pt")
    assert done.code == 0, done.err
    shown = rctk("inspect", "small.pt")
    assert shown.code == 0, shown.err
    assert "step 1: prune.nm24" in shown.out


def test_a_state_dict_without_its_architecture_is_refused_in_a_line(rctk, sparse):
    assert "--arch" in rctk("inspect", "sparse.pt").refusal


@pytest.mark.parametrize("flags", [("--target", "cpu"), ("--sensitivity", "--data", "digits:test")])
def test_a_checkpoint_has_no_int8_file_to_look_into(rctk, checkpoint, flags):
    assert "look into int8 files; export" in rctk("inspect", checkpoint, *flags).refusal


def test_a_bundle_takes_no_flags_of_model_files(rctk, bundle):
    assert "model file of torch" in rctk("inspect", bundle, "--arch", "mlp").refusal
