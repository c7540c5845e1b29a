"""Layers alone in integers, and the fewest that have to stay float; shown where one layer is known to be bad."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from rctk.compress.step import Context, Draft
from rctk.data.split import Split
from rctk.exporting.files import plans_of, ranges_of
from rctk.progress import Silent
from rctk.quantize.layer_bits import LayerBits
from rctk.quantize.mixed import Mixed, fewest_float
from rctk.quantize.sensitivity import Probe, sensitivity
from rctk_export.capture import capture
from rctk_export.input_spec import InputSpec
from rctk_export.onnx_module import OnnxModule
from rctk_kernels.errors import DataError, MismatchError, OptionError

SPEC = InputSpec(channels=2, height=6, width=6)


class Net(nn.Module):
    """``bad`` has one huge weight that no image meets, so that per tensor all its other codes become 0."""

    def __init__(self) -> None:
        super().__init__()
        self.good = nn.Conv2d(2, 4, 3, padding=1)
        self.bad = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4 * 36, 3)

    def forward(self, x):
        return self.fc(self.bad(self.good(x).relu()).relu().flatten(1))


IMAGES = np.random.default_rng(0).random((48, *SPEC.shape), dtype=np.float32)
IMAGES *= np.random.default_rng(1).random((48, 2, 1, 1), dtype=np.float32)


@pytest.fixture(scope="module")
def draft():
    torch.manual_seed(0)
    module = Net()
    with torch.no_grad():
        module.good.bias[3] = -100  # channel 3 is always 0
        module.bad.weight[:, 3] = 1e4
        module.fc.bias -= module(torch.from_numpy(IMAGES)).mean(dim=0)  # every class occurs
    return Draft(model=capture(module.eval(), SPEC), input=SPEC).with_formats(per_channel=False)


@pytest.fixture(scope="module")
def split(draft):
    with torch.no_grad():
        labels = OnnxModule(draft.model)(torch.from_numpy(IMAGES)).argmax(1).numpy()
    return Split(name="noise:train", images=IMAGES, labels=labels)


@pytest.fixture
def probe(draft, split):
    return Probe(draft.model, split, eps=0.001, seed=0)


def known(draft, split):
    return replace(draft, ranges=ranges_of(draft, plans_of(draft, ("cpu",)), split, Silent()))


def test_the_float_graph_is_right_by_construction(probe):
    assert probe.reference.clean.all()
    assert probe.reference.divergence == 0
    assert len(probe.versions) == 2


def test_the_bad_layer_stands_out(draft, split, probe):
    effects = {effect.layer: effect for effect in sensitivity(known(draft, split), "cpu", probe, Silent())}
    assert list(effects) == ["good", "bad", "fc"]
    assert effects["bad"].divergence > 10 * max(effects["good"].divergence, effects["fc"].divergence)
    assert effects["bad"].clean_drop > 0.1
    assert effects["bad"].robust_drop > 0.1
    assert effects["bad"].bits == 8


@pytest.mark.parametrize("targets", [("cpu",), ("tensorrt", "cpu-mirror")], ids=str)
def test_only_the_bad_layer_stays_float(draft, split, probe, targets):
    done = fewest_float(draft, targets, split, probe, 0.1, Silent())
    assert done.keep_float == ("bad",)
    facts = done.facts["quant.mixed"]
    assert facts["kept_float"] == ["bad"]
    assert facts["measured_drop"] <= 0.1
    assert done.ranges == draft.ranges


def test_where_the_margin_holds_nothing_stays_float(draft, split, probe):
    assert fewest_float(draft, ("cpu",), split, probe, 0.99, Silent()).keep_float == ()


def test_a_margin_that_cannot_be_kept_is_refused(draft, split, probe):
    coarse = draft.with_formats(weight_bits=2, activation_bits=2)
    with pytest.raises(MismatchError, match="in float, accuracy still drops by"):
        fewest_float(coarse, ("cpu",), split, probe, 0.0, Silent())


def test_the_step_measures_on_validation_images(draft, split):
    context = Context(train=split, validation=split.take(np.arange(20)), input=SPEC)
    done = Mixed(max_drop=0.05, eps=0.001)(draft, context)
    assert done.keep_float == ("bad",)
    assert done.facts["quant.mixed"]["samples"] == 20


def test_images_are_needed(draft, split):
    with pytest.raises(DataError, match="holds no image"):
        Probe(draft.model, split.take(np.arange(0)), eps=0.1, seed=0)


@pytest.mark.parametrize("wrong", [{"max_drop": -0.1}, {"max_drop": 1.0}, {"samples": 0}])
def test_margins_that_make_no_sense_are_refused(wrong):
    with pytest.raises(OptionError, match=r"quant\.mixed"):
        Mixed(**wrong)


def test_layer_bits_are_set_by_name(draft, split):
    context = Context(train=split, validation=split, input=SPEC)
    done = LayerBits(layer="bad", weight_bits=4, input_bits=5)(draft, context)
    assert done.formats.of_layer("bad") == 4
    assert done.formats.of_layer("good") == 8
    assert 5 in done.formats.tensor_bits.values()
    with pytest.raises(OptionError, match="did you mean 'bad'"):
        LayerBits(layer="bd", weight_bits=4)(draft, context)


def test_a_margin_needs_a_static_file(draft, split, probe):
    with pytest.raises(OptionError, match="writes a dynamic file"):
        fewest_float(replace(draft, form="dynamic"), ("cpu",), split, probe, 0.1, Silent())
