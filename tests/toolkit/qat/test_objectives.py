"""The inner attack sees the net that ships, and changes nothing in it; answers of the float graph can be learnt."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rctk.compress.step import Context, Draft
from rctk.data.split import Split
from rctk.distill.teacher import soft_divergence
from rctk.qat.distilled import Distilled, graph_teacher
from rctk.qat.lsq import Lsq
from rctk.qat.qat_at import QatAt, quantizers_off
from rctk.train import build_objective
from rctk.train.inner import InnerPgd
from rctk.train.standard import Standard
from rctk_export.capture import capture
from rctk_export.input_spec import InputSpec
from rctk_export.onnx_module import OnnxModule
from rctk_kernels.errors import OptionError

SPEC = InputSpec(channels=1, height=8, width=8)


@pytest.fixture(scope="module")
def draft():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3)
        )
        return Draft(model=capture(module.eval(), SPEC), input=SPEC)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(8, *SPEC.shape, generator=generator), torch.randint(0, 3, (8,), generator=generator)


@pytest.fixture
def net(draft, batch):
    x, y = batch
    split = Split(name="noise", images=x.numpy(), labels=y.numpy().astype(np.int64))
    context = Context(train=split, validation=split, input=SPEC)
    return Lsq(weights=2, activations=2, samples=8).net(draft, context).train()


def seeded():
    return torch.Generator().manual_seed(1)


def expected(net, x, y):
    attack = InnerPgd(eps=0.1, steps=3, step_size=0.25)
    net.eval()
    made = attack(net, x, y, seeded())
    net.train()
    return made


def test_the_attack_sees_the_quantized_net_as_it_evaluates(net, batch):
    made = expected(net, *batch)
    loss = QatAt(eps=0.1, steps=3)(net, *batch, seeded())
    again = F.cross_entropy(net(made), batch[1])
    assert float(loss.detach()) == pytest.approx(float(again.detach()), rel=1e-5)


def test_the_attack_on_the_float_net_is_another_one(net, batch):
    with quantizers_off(net):
        floating = expected(net, *batch)
    assert not torch.equal(floating, expected(net, *batch))
    loss = QatAt(eps=0.1, steps=3, attack_on="float")(net, *batch, seeded())
    assert float(loss.detach()) == pytest.approx(float(F.cross_entropy(net(floating), batch[1]).detach()), rel=1e-5)
    assert not any(quantizer.off for quantizer in net.quantizers)


@pytest.mark.parametrize("objective", [QatAt(eps=0.1, steps=3), build_objective("pgd-at:eps=0.1,steps=3")], ids=str)
def test_scales_and_statistics_rest_while_the_net_is_attacked(net, batch, objective):
    before = {key: value.clone() for key, value in net.state_dict().items()}
    objective.attacked(net, *batch, seeded())
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(norm.training for norm in net.norms)


def test_half_of_the_images_are_attacked_each_way(net, batch):
    loss = QatAt(eps=0.1, steps=2, attack_on="both", clean=0.5)(net, *batch, seeded())
    assert torch.isfinite(loss)


def test_settings_of_the_attack_are_checked():
    with pytest.raises(OptionError, match=r"qat-at needs attack_on quant, float or both, got 'nothing'$"):
        QatAt(attack_on="nothing")
    with pytest.raises(OptionError, match=r"qat-at needs 0 <= clean < 1, got 1$"):
        QatAt(clean=1)
    with pytest.raises(OptionError, match=r"evaluation mode.*got attack_mode 'train'; leave it out"):
        QatAt(attack_mode="train")


def test_the_float_graph_teaches(draft, net, batch):
    x, y = batch
    teacher = graph_teacher(draft)
    with torch.no_grad():
        assert torch.allclose(teacher(x), OnnxModule(draft.model)(x))
    loss = Distilled(objective=Standard(), teacher=teacher, share=0.25, temperature=2.0)(net.eval(), x, y, seeded())
    own, soft = F.cross_entropy(net(x), y), soft_divergence(net(x), teacher(x), 2.0)
    assert float(loss.detach()) == pytest.approx(float((0.75 * own + 0.25 * soft).detach()), rel=1e-5)
    loss.backward()
    assert all(float(q.learned.change.grad.abs().max()) > 0 for q in net.quantizers)
