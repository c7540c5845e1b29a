"""Equalization and bias absorption keep the function; bias correction mends means."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from rctk.checkpoint import load_model
from rctk.compress.step import Context, Draft
from rctk.data.split import Split
from rctk.quantize.absorb_bias import AbsorbBias
from rctk.quantize.bias_correction import BiasCorrection
from rctk.quantize.chains import by_channel, links
from rctk.quantize.equalize import Equalize, equalized, rescale
from rctk.quantize.layers import rounded, weight_layers
from rctk_export.capture import capture
from rctk_export.graph import Graph
from rctk_export.input_spec import InputSpec
from rctk_export.onnx_module import OnnxModule
from rctk_kernels.errors import MismatchError, OptionError

SPEC = InputSpec(channels=2, height=8, width=8)


class Chain(nn.Module):
    """Pointwise, depthwise, pointwise, pooling, flatten, linear: every kind of link."""

    def __init__(self, activation=nn.ReLU) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, 1)
        self.wise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.last = nn.Conv2d(6, 4, 1, bias=False)
        self.fc1 = nn.Linear(4 * 16, 5)
        self.fc2 = nn.Linear(5, 3)
        self.act = activation()

    def forward(self, x):
        x = self.act(self.wise(self.act(self.first(x))))
        x = nn.functional.max_pool2d(self.last(x), 2).flatten(1)
        return self.fc2(self.fc1(x))


def draft_of(module):
    return Draft(model=capture(module.eval(), SPEC), input=SPEC)


@pytest.fixture
def module():
    torch.manual_seed(0)
    return Chain()


@pytest.fixture
def images():
    return np.random.default_rng(0).random((32, *SPEC.shape), dtype=np.float32)


@pytest.fixture
def context(images):
    split = Split(name="noise:train", images=images, labels=np.arange(32) % 3)
    return Context(train=split, validation=split, input=SPEC)


def logits(model, images):
    with torch.no_grad():
        return OnnxModule(model)(torch.from_numpy(images)).numpy()


def test_links_pass_depthwise_layers_pooling_and_flatten(module):
    found = [(link.first.name, link.second.name) for link in links(Graph(draft_of(module).model))]
    assert found == [("first", "wise"), ("wise", "last"), ("last", "fc1"), ("fc1", "fc2")]


def test_equalization_keeps_the_function_and_makes_ranges_equal(module, images):
    with torch.no_grad():
        module.first.weight *= torch.tensor([64.0, 1, 8, 0.1, 2, 30]).reshape(-1, 1, 1, 1)
    draft = draft_of(module)
    made, pairs, spread = equalized(draft.model)
    assert len(pairs) == 4
    assert spread > 4
    assert logits(made, images) == pytest.approx(logits(draft.model, images), abs=1e-4)
    graph = Graph(made)
    for link in links(graph):
        left = np.abs(graph.constant(link.first, 1).reshape(link.channels, -1)).max(axis=1)
        right = np.abs(by_channel(link, graph.constant(link.second, 1))).max(axis=(1, 3)).reshape(-1)
        assert left == pytest.approx(right, rel=0.01)


class LastAxis(nn.Module):
    """A convolution, and a linear layer on the last of its axes, which is as long as it has channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(2, 8, 1), nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(self.conv(x).relu()).mean((1, 2))


def test_a_layer_that_mixes_another_axis_is_no_link():
    assert links(Graph(draft_of(LastAxis()).model)) == []


def test_equalization_by_hand():
    module = nn.Sequential(nn.Flatten(), nn.Linear(128, 1), nn.ReLU(), nn.Linear(1, 2))
    with torch.no_grad():
        module[1].weight.fill_(8.0)
        module[1].bias.fill_(4.0)
        module[3].weight.copy_(torch.tensor([[2.0], [-1.0]]))
    made, _, spread = equalized(draft_of(module).model)
    constants = sorted(np.abs(layer.weight).max() for layer in weight_layers(Draft(model=made, input=SPEC)))
    assert constants == pytest.approx([4, 4])  # s = sqrt(8 / 2) = 2: 8 / 2 and 2 * 2
    assert spread == pytest.approx(2)
    assert weight_layers(Draft(model=made, input=SPEC))[0].bias == pytest.approx([2])


def test_a_dead_channel_is_left_alone(module, images):
    with torch.no_grad():
        module.first.weight[2] = 0
        module.wise.weight[3] = 0
    draft = draft_of(module)
    made = equalized(draft.model)[0]
    assert np.isfinite(logits(made, images)).all()
    assert logits(made, images) == pytest.approx(logits(draft.model, images), abs=1e-4)


def test_relu6_becomes_relu_where_no_class_changes(images, context):
    torch.manual_seed(0)
    draft = draft_of(Chain(nn.ReLU6))  # its activations stay far below 6
    done = Equalize()(draft, context)
    assert done.facts["quant.equalize"]["relu6_agreement"] == 1
    assert len(done.facts["quant.equalize"]["pairs"]) == 4
    assert logits(done.model, images) == pytest.approx(logits(draft.model, images), abs=1e-4)


def test_relu6_that_matters_is_not_replaced(context):
    torch.manual_seed(0)
    module = Chain(nn.ReLU6)
    with torch.no_grad():
        module.first.weight *= 100
        module.wise.weight *= 100
    with pytest.raises(MismatchError, match="relu6=keep"):
        Equalize()(draft_of(module), context)
    kept = Equalize(relu6="keep")(draft_of(module), context)
    assert len(kept.facts["quant.equalize"]["pairs"]) == 2  # those behind the bounded activations


def test_a_high_bias_moves_on_without_changing_the_function(module, images, context):
    with torch.no_grad():
        module.wise.bias += 20
    draft = draft_of(module)
    done = AbsorbBias()(draft, context)
    assert done.facts["quant.absorb_bias"]["channels"] == {"wise": 6}
    assert logits(done.model, images) == pytest.approx(logits(draft.model, images), abs=5e-3)  # 3 deviations were cut
    before, after = (next(x for x in weight_layers(d) if x.name == "wise").bias for d in (draft, done))
    assert (before - after > 10).all()


def test_bias_correction_takes_back_the_mean_error_of_every_layer(module, images, context):
    draft = draft_of(module).with_formats(weight_bits=2)
    done = BiasCorrection(samples=32)(draft, context)

    def means(model, formats):
        run = OnnxModule(model).requires_grad_(False)
        for layer in weight_layers(draft):
            if formats:
                run.initializers[layer.initializer].copy_(torch.from_numpy(rounded(formats, layer)))
        found = run.observe(torch.from_numpy(images), [layer.output for layer in weight_layers(draft)])
        return {name: value.transpose(0, 1).flatten(1).mean(dim=1).numpy() for name, value in found.items()}

    wanted, worse = means(draft.model, None), means(draft.model, draft.formats)
    better = means(done.model, draft.formats)
    assert max(np.abs(worse[name] - wanted[name]).max() for name in wanted) > 0.05
    for name, value in better.items():
        assert value == pytest.approx(wanted[name], abs=1e-4)


@pytest.mark.parametrize("step", [lambda: AbsorbBias(deviations=-1), lambda: BiasCorrection(samples=0)])
def test_settings_that_make_no_sense_are_refused(step):
    with pytest.raises(OptionError):
        step()


@pytest.mark.skipif(not os.environ.get("RCTK_MODELS"), reason="set RCTK_MODELS to the folder of published networks")
def test_equalization_undoes_a_rescale_of_a_published_network():
    path = Path(os.environ["RCTK_MODELS"]) / "cifar10" / "resnet20-12fca82f.th"
    spec = InputSpec(channels=3, height=32, width=32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    model = capture(load_model(path, arch="resnet20", input=spec).module, spec)
    graph, rng = Graph(onnx.ModelProto.FromString(model.SerializeToString())), np.random.default_rng(0)
    for link in links(graph):
        rescale(graph, link, 1 / np.exp(rng.uniform(0, np.log(64), link.channels)))
    broken = graph.finish()
    x = torch.from_numpy(rng.random((16, *spec.shape), dtype=np.float32))

    def error(changed):
        """Return the error of the logits with weights per tensor."""
        draft = Draft(model=changed, input=spec).with_formats(per_channel=False)
        module = OnnxModule(changed).requires_grad_(False)
        for layer in weight_layers(draft):
            module.initializers[layer.initializer].copy_(torch.from_numpy(rounded(draft.formats, layer)))
        return float((module(x) - OnnxModule(model).requires_grad_(False)(x)).square().mean())

    healthy, lost, again = error(model), error(broken), error(equalized(broken)[0])
    assert lost > 5 * healthy
    assert again < healthy + 0.1 * (lost - healthy)
