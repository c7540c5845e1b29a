"""A published network keeps its accuracy in four bits after a few steps; its images and weights must be there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from rctk.checkpoint import load_model
from rctk.compress.images import hold_out
from rctk.compress.step import Context, Draft
from rctk.data.read import read_split
from rctk.exporting.files import int8_files
from rctk.progress import Silent
from rctk.qat.lsq import Lsq
from rctk_export.capture import capture
from rctk_export.input_spec import InputSpec
from rctk_export.onnx_module import OnnxModule

FILE = Path(os.environ.get("RCTK_MODELS", "")) / "cifar10/resnet20-12fca82f.th"
SPEC = InputSpec(channels=3, height=32, width=32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
LOSS = 0.03
"""What 300 test images may lose; 4 bits lose less than a point after longer training."""

needed = pytest.mark.skipif(
    not ("RCTK_MODELS" in os.environ and "RCTK_DATA" in os.environ and FILE.exists()),
    reason="RCTK_MODELS and RCTK_DATA do not hold the published ResNet-20 and CIFAR-10",
)


@needed
def test_resnet20_keeps_its_accuracy_in_four_bits():
    loaded = load_model(FILE, arch="resnet20", input=SPEC)
    draft = Draft(model=capture(loaded.module, SPEC), input=SPEC)
    train, validation = hold_out(read_split("cifar10:train", samples=700, seed=0), 0)
    context = Context(train=train, validation=validation, input=SPEC)
    step = Lsq(weights=4, activations=4, epochs=1, batch_size=32, samples=96)
    (file,) = int8_files(step(draft, context), ["cpu"], train, Silent())
    test = read_split("cifar10:test", samples=300)
    right = []
    for model in (draft.model, file.model):
        with torch.inference_mode():
            found = OnnxModule(model)(torch.from_numpy(test.images)).argmax(1).numpy()
        right.append(float((found == test.labels).mean()))
    assert right[1] > right[0] - LOSS, right
