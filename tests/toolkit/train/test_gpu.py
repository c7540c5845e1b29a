"""What only a CUDA GPU can show."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from rctk.checkpoint import load_model
from rctk.train import ResumeFile, build_objective

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU that torch can use")
TWO_GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs that torch can use")
GPU = {"accelerator": "cuda", "validation_eps": 0.1}


@pytest.mark.gpu
@NO_GPU
@pytest.mark.parametrize("strategy", ["auto", "ddp"])
@pytest.mark.parametrize("precision", ["32", "bf16", "fp16"])
def test_adversarial_training_learns_in_every_precision_and_strategy(precision, strategy, digits, fresh, run):
    module = fresh()
    objective = build_objective("pgd-at:eps=0.1,steps=5,step_size=0.35")
    best = run(module, digits, objective=objective, epochs=8, precision=precision, strategy=strategy, **GPU).best
    assert best.clean_accuracy > 0.93
    assert best.robust_accuracy > 0.6
    assert next(module.parameters()).device.type == "cpu"  # where it was


@pytest.mark.gpu
@NO_GPU
def test_images_and_weights_meet_on_the_gpu_and_a_run_goes_on_where_it_was_stopped(digits, fresh, run, tmp_path):
    settings = {**GPU, "epochs": 4, "precision": "32", "objective": build_objective("free-at:eps=0.1,replays=2")}
    state = ResumeFile(path=tmp_path / "state.pt", go_on=False)

    def stop(epoch, _module):
        if epoch.number == 3:
            raise KeyboardInterrupt

    through = run(fresh(), digits, **settings)
    with pytest.raises(KeyboardInterrupt):
        run(fresh(), digits, stop, resume=state, **settings)
    resumed = run(fresh(), digits, resume=replace(state, go_on=True), **settings)
    for key, value in through.last_weights.items():
        torch.testing.assert_close(value, resumed.last_weights[key])  # cuDNN sums in no fixed order


@pytest.mark.gpu
@TWO_GPUS
def test_two_gpus_train_what_one_does(tmp_path):
    """Without BatchNorm the mean of two gradients is the gradient of the whole batch, up to rounding."""
    flags = ("--arch", "mlp:hidden=16", "--data", "digits:train", "--epochs", "2", "--precision", "32")
    for devices in ("1", "2"):
        command = [sys.executable, "-m", "rctk.cli.main", "train", *flags, "--accelerator", "cuda"]
        ends = ["--devices", devices, "-o", f"{devices}.pt", "--records", devices]
        done = subprocess.run([*command, *ends], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("best epoch") == 1
    one, two = (load_model(tmp_path / f"{devices}-last.pt").module.state_dict() for devices in (1, 2))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-4)
