"""Each defect of torchattacks 3.5.1 that our attacks meet: shown, and shown to be absent in ours."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
import torchattacks
from torch import nn

from rctk.attacks import ATTACKS
from rctk.attacks.torchattacks_host import INSTALL
from rctk.threat import ThreatModel
from rctk_kernels.errors import AttackError, DataError

EPS = ThreatModel(eps=0.1)
ADAPTERS = ["torchattacks-fgsm", "torchattacks-pgd", "torchattacks-apgd-ce:steps=5", "torchattacks-apgd-t:steps=5"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def run(text, model, batch, threat=EPS, seed=0):
    return ATTACKS.build(text)(model, *batch, threat, generator(seed))


@pytest.fixture
def batch(digits):
    return torch.from_numpy(digits.split.images[:40]), torch.from_numpy(digits.split.labels[:40])


def draws_after(call, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        call()
        return torch.rand(3).tolist()


def test_the_global_random_state_is_overwritten_by_theirs_and_kept_by_ours(digits, batch):
    raw = [draws_after(lambda: torchattacks.APGD(digits.plain, eps=0.1, steps=2)(*batch), seed) for seed in (1, 2)]
    assert raw[0] == raw[1]
    for text in [*ADAPTERS, "apgd-ce:steps=5", "pgd:steps=5"]:
        assert draws_after(lambda t=text: run(t, digits.plain, batch), 1) == draws_after(lambda: None, 1)


def test_every_batch_starts_alike_in_theirs_and_by_seed_and_image_in_ours(digits, batch):
    images = batch[0][:1].repeat(2, 1, 1, 1) * torch.tensor([1, 0.999]).view(2, 1, 1, 1)
    x = [images[:1], images[1:]]
    y = batch[1][:1]
    attack = torchattacks.APGD(digits.robust, eps=0.5, steps=1)
    starts = []
    original = attack.get_logits
    attack.get_logits = lambda image, *rest: (starts.append(image.detach().clone()), original(image, *rest))[1]
    with torch.random.fork_rng(devices=[]):
        for one in x:
            attack(one, y)
    noise = [starts[1] - x[0], starts[len(starts) // 2 + 1] - x[1]]
    free = (starts[1] > 0) & (starts[1] < 1)
    torch.testing.assert_close(noise[0][free], noise[1][free], atol=1e-3, rtol=0)  # two batches, one start
    for text in ("torchattacks-pgd:steps=1", "pgd:steps=1,stop_at_success=false"):
        first, second, again = (run(text, digits.robust, (one, y)) for one in (x[0], x[1], x[0]))
        assert torch.equal(first, again)
        assert not torch.allclose(first - x[0], second - x[1], atol=1e-3)
        assert not torch.equal(first, run(text, digits.robust, (x[0], y), seed=1))


def test_survivors_come_back_clean_from_theirs_and_attacked_from_ours(digits, batch):
    x, y = batch
    with torch.random.fork_rng(devices=[]):
        raw = torchattacks.APGD(digits.robust, eps=0.05, steps=20)(x, y)
    ours = run("apgd-ce:steps=20", digits.robust, batch, ThreatModel(eps=0.05))
    with torch.no_grad():
        alive = (digits.robust(raw).argmax(1) == y) & (digits.robust(ours).argmax(1) == y)
        assert alive.sum() > 10
        assert torch.equal(raw[alive], x[alive])
        assert not (ours[alive] == x[alive]).flatten(1).all(1).any()


def test_the_mode_of_an_inner_batchnorm_is_lost_by_theirs_and_kept_by_ours(digits, batch):
    def mixed():
        model = nn.Sequential(copy.deepcopy(digits.plain), nn.BatchNorm1d(10)).train()
        model[1].eval()
        return model

    model = mixed()
    torchattacks.FGSM(model, eps=0.1)(*batch)
    assert model[1].training
    for text in ADAPTERS:
        model = mixed()
        run(text, model, batch)
        assert model.training
        assert not model[1].training


def test_an_exception_leaves_their_model_in_evaluation_mode_and_ours_as_it_was(batch):
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x):
            raise FloatingPointError("no")

    model = Fails().train()
    with pytest.raises(FloatingPointError):
        torchattacks.FGSM(model, eps=0.1)(*batch)
    assert not model.training
    model.train()
    with pytest.raises(FloatingPointError):
        run("torchattacks-fgsm", model, batch)
    assert model.training
    assert model.weight.requires_grad


def test_an_exported_module_fails_in_theirs_and_runs_in_ours(digits, batch):
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    model = torch.export.export(digits.plain, (batch[0][:2],), dynamic_shapes=shapes).module()
    with pytest.raises(NotImplementedError):
        torchattacks.FGSM(model, eps=0.1)(*batch)
    for text in [*ADAPTERS, "fgsm", "pgd:steps=3", "apgd-ce:steps=3", "apgd-t:steps=3"]:
        torch.testing.assert_close(run(text, model, batch), run(text, digits.plain, batch), atol=1e-4, rtol=0)


def test_images_outside_their_range_are_clamped_by_theirs_and_refused_by_ours(digits, batch):
    x, y = batch
    outside = 2 * x - 0.5
    assert torchattacks.FGSM(digits.plain, eps=0.0)(outside, y).min() == 0
    for text in ADAPTERS:
        with pytest.raises(DataError, match=r"float32 images in \[0, 1\]"):
            run(text, digits.plain, (outside, y))


def test_half_precision_fails_or_leaves_the_budget_in_theirs_and_is_refused_by_ours(digits, batch):
    x, y = batch
    model, half = copy.deepcopy(digits.plain).bfloat16(), x.bfloat16()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        raw = torchattacks.PGD(model, eps=0.1, alpha=0.03, steps=10)(half, y)
    assert (raw.float() - x).abs().max() > 0.1002
    for text in ADAPTERS:
        with pytest.raises(DataError, match="float32"):
            run(text, model, (half, y))


def test_three_classes_are_an_index_error_in_theirs_and_attacked_by_ours(batch):
    x = batch[0]
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3, bias=False))
    model[1].weight.data = torch.randn(3, 64, generator=generator()) * 0.3
    y = model(x).argmax(1)
    with torch.random.fork_rng(devices=[]), pytest.raises(IndexError):
        torchattacks.APGDT(model, eps=0.1, steps=5, n_classes=3)(x, y)
    with torch.no_grad():
        assert (model(run("apgd-t:steps=10", model, (x, y))).argmax(1) != y).float().mean() > 0.25
    with pytest.raises(AttackError, match="needs four or more classes, the model has 3"):
        run("torchattacks-apgd-t", model, (x, y))


def test_a_model_without_parameters_puzzles_theirs_and_not_ours(batch, capsys):
    class Bare(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, 20:30] * 5

    attack = torchattacks.FGSM(Bare(), eps=0.1)
    assert attack.device is None
    assert "Failed to set device" in capsys.readouterr().out
    y = Bare()(batch[0]).argmax(1)
    for text in [*ADAPTERS, "fgsm", "pgd", "apgd-ce", "apgd-t:steps=5"]:
        moved = run(text, Bare(), (batch[0], y))
        assert (Bare()(moved).argmax(1) != y).any()
    assert not capsys.readouterr().out


def test_one_step_size_for_the_whole_batch_in_l2_is_avoided(digits, batch):
    x, y = batch[0][:6], batch[1][:6]
    threat = ThreatModel(norm="l2", eps=0.6)
    text = "torchattacks-apgd-t:steps=30,targets=2"
    whole = run(text, digits.robust, (x, y), threat)
    parts = torch.cat([run(text, digits.robust, (x[i : i + 1], y[i : i + 1]), threat) for i in range(6)])
    assert torch.equal(whole, parts)


def test_their_default_of_ten_steps_is_never_used():
    assert torchattacks.APGD(nn.Linear(1, 1)).steps == torchattacks.APGDT(nn.Linear(1, 1)).steps == 10
    assert ATTACKS.build("torchattacks-apgd-ce").steps == ATTACKS.build("torchattacks-apgd-t").steps == 100


def test_their_parameters_stay_without_gradients(digits, batch):
    model = copy.deepcopy(digits.plain)
    with torch.random.fork_rng(devices=[]):
        torchattacks.CW(model, steps=2)(*batch)
    assert all(parameter.grad is not None for parameter in model.parameters())  # why CW is not among the adapters
    model.zero_grad()  # to None, also where another test's reference left gradients
    for text in ADAPTERS:
        run(text, model, batch)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_l2_is_refused_where_there_is_none(digits, batch):
    with pytest.raises(AttackError, match="runs in linf only, got l2"):
        run("torchattacks-fgsm", digits.plain, batch, ThreatModel(norm="l2"))


def test_without_the_package_one_line_says_how_to_install_it(digits, batch, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(AttackError, match=INSTALL.replace(".", r"\.")):
        run("torchattacks-pgd", digits.plain, batch)
    run("pgd:steps=2", digits.plain, batch)  # ours does without


def test_no_images_are_no_error(digits, batch):
    for text in ADAPTERS:
        assert run(text, digits.plain, (batch[0][:0], batch[1][:0])).shape == (0, 1, 8, 8)
