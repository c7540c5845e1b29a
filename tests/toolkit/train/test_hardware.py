import os

import pytest
import torch
from torch import nn

from rctk.machine import available_cpus
from rctk.train.hardware import Hardware, make_fabric, native_bf16
from rctk_kernels.errors import OptionError

NO_GPU = not torch.cuda.is_available()
PROCESSORS = len(available_cpus())


def test_what_auto_means_is_said_and_stays():
    found = Hardware().resolved()
    assert found.accelerator == ("cpu" if NO_GPU else "cuda")
    assert found.precision == ("bf16" if native_bf16(found.accelerator) else "32")
    assert found.resolved() == found


@pytest.mark.skipif(PROCESSORS < 2, reason="this process may use one processor")
def test_several_processes_average_their_gradients():
    assert Hardware(accelerator="cpu", devices=2).resolved().strategy == "ddp"


def test_more_processes_than_processors_are_refused():
    assert Hardware(accelerator="cpu", devices=PROCESSORS).resolved().devices == PROCESSORS
    words = f"{PROCESSORS + 1} processes on the CPU are asked for and this one may use {PROCESSORS} processor"
    with pytest.raises(OptionError, match=words):
        Hardware(accelerator="cpu", devices=PROCESSORS + 1).resolved()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to processors")
def test_processors_that_others_have_do_not_count():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        with pytest.raises(OptionError, match="may use 1 processor; leave devices out"):
            Hardware(accelerator="cpu", devices=2).resolved()
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.skipif(not NO_GPU, reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(OptionError, match="1 CUDA devices are asked for and torch finds 0"):
        Hardware(accelerator="cuda").resolved()


def test_fp16_on_a_cpu_is_refused():
    with pytest.raises(OptionError, match="choose bf16 or 32"):
        Hardware(accelerator="cpu", precision="fp16").resolved()


def test_images_reach_the_model_unrounded_and_convolutions_run_in_bf16():
    seen = []

    class Look(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(1, 1)

        def forward(self, x):
            y = self.linear(x)
            seen.extend([x, y.dtype])
            return y

    fabric = make_fabric(Hardware(accelerator="cpu", precision="bf16"))
    model = fabric.setup(Look())
    x = torch.tensor([[8 / 255]])
    assert model(x).dtype == torch.float32
    assert torch.equal(seen[0], x)
    assert seen[1] == torch.bfloat16


def test_float32_is_float32():
    fabric = make_fabric(Hardware(accelerator="cpu", precision="32"))
    linear = fabric.setup(nn.Linear(3, 2))
    x = torch.rand(4, 3)
    assert torch.equal(linear(x), nn.functional.linear(x, linear.weight, linear.bias))


def test_a_fabric_leaves_the_environment_alone():
    before = dict(os.environ)
    make_fabric(Hardware(accelerator="cpu").resolved())
    assert dict(os.environ) == before
