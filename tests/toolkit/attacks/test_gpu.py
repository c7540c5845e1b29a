"""What only a CUDA GPU can show about attacks: images and models meet on it, and the verdict is that of a CPU."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

from rctk.attacks import ATTACKS
from rctk.compress.step import Draft
from rctk.evaluation.judge import evaluate
from rctk.evaluation.module_predict import ModulePredict
from rctk.exporting.files import int8_files
from rctk.progress import Silent
from rctk.threat import ThreatModel
from rctk_export.capture import capture
from rctk_export.input_spec import InputSpec
from rctk_export.onnx_module import OnnxModule

SPEC = InputSpec(channels=1, height=8, width=8)
TWO_MODELS = {"border-walk", "disagreement", "diva"}
SHORT = {"steps": 6, "queries": 40, "searches": 2, "patience": 6, "tries": 2}
GRADIENT = [name for name in ATTACKS.names() if ATTACKS.load(name).kind == "gradient" and name not in TWO_MODELS]
SLACK = 0.06
"""Share of images on which rounding on another device may decide otherwise."""
DEVICES = [
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU that torch can use"),
        ],
    )
]


def short(name):
    """Build an attack with few steps."""
    known = {field.name for field in dataclasses.fields(ATTACKS.load(name))}
    return ATTACKS.make(name, {key: str(value) for key, value in SHORT.items() if key in known})


def threat_of(name):
    return ThreatModel(norm="l2", eps=0.8) if name == "ddn" else ThreatModel(eps=0.1)


def verdict(name, model, split):
    """Attack ``model`` where it is, judge with the same."""
    return evaluate(ModulePredict(model), split, short(name), threat_of(name), seed=0, batch_size=50, model=model)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", GRADIENT)
def test_an_attack_breaks_as_many_images_on_another_device(name, device, digits):
    split = digits.split.take(np.arange(60))
    near, far = (verdict(name, copy.deepcopy(digits.robust).to(where), split) for where in ("cpu", device))
    assert far.clean_accuracy == near.clean_accuracy
    assert far.robust_accuracy == pytest.approx(near.robust_accuracy, abs=SLACK)


@pytest.mark.parametrize("device", DEVICES)
def test_the_twin_of_an_int8_file_classifies_and_is_attacked_there(device, digits):
    draft = Draft(model=capture(copy.deepcopy(digits.robust), SPEC), input=SPEC)
    (file,) = int8_files(draft, ("cpu",), digits.split, Silent())
    near, far = OnnxModule(file.model), OnnxModule(file.model).to(device)
    images = torch.from_numpy(digits.split.images)
    with torch.no_grad():
        agree = (near(images).argmax(1) == far(images.to(device)).argmax(1).cpu()).float().mean()
    assert agree >= 0.99
    broken = [verdict("pgd", model, digits.split).robust_accuracy for model in (near, far)]
    assert broken[1] == pytest.approx(broken[0], abs=SLACK)
