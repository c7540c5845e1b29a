from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from os import environ
from pathlib import Path

import numpy as np
import pytest
import torch
from pyautoattack import AutoAttack as Official
from torch import nn

from rctk.attacks.autoattack import AutoAttack, promising
from rctk.attacks.ball import Ball
from rctk.checkpoint import load_model
from rctk.data.read import read_split
from rctk.evaluation.counted_model import CountedModel
from rctk.evaluation.judge import evaluate
from rctk.threat import ThreatModel
from rctk.train.normalised import Normalised
from rctk_kernels.errors import OptionError

THREATS = {
    "linf": ThreatModel(eps=0.15),
    "l2": ThreatModel(norm="l2", eps=0.6),
    "l1": ThreatModel(norm="l1", eps=1.2),
}
NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
SAMPLES = 20

pytestmark = pytest.mark.filterwarnings("ignore:there are .* points with zero gradient")


SHORT = {"steps": 15, "queries": 300}
"""What most comparisons run with, on both sides. One runs at full length; all see the published settings below."""


def official(model, split, threat, version="standard", *, steps=100, queries=5000):
    """Who survives the reference implementation, and what it cost."""
    counted = CountedModel(model)
    x, y = torch.from_numpy(split.images), torch.from_numpy(split.labels)
    tracer = sys.gettrace()  # its check for dynamic defences traces, and then leaves coverage without a tracer
    with torch.random.fork_rng(devices=[]):
        attack = Official(counted, norm=NORMS[threat.norm], eps=threat.eps, version=version, seed=0)
        attack.apgd.n_iter = attack.apgd_targeted.n_iter = attack.fab.n_iter = steps
        attack.square.n_queries = queries
        adversarial, _ = attack.run_standard_evaluation(x, y, batch_size=len(x))
    sys.settrace(tracer)
    with torch.no_grad():
        robust = (model(x).argmax(1) == y) & (model(adversarial).argmax(1) == y)
    return robust.numpy(), counted.forward_images + counted.backward_images


def ours(model, split, threat, predict_with, **settings):
    result = evaluate(predict_with(model), split, AutoAttack(**settings), threat, seed=0, model=model)
    return result.robust, result.forward_passes + result.backward_passes


def take(split, count):
    return split.take(np.arange(count))


def settings_of(version, norm="linf"):
    """Name and settings of every stage, without what is as usual."""
    usual = {"stop_at_success": True, "eot": 1, "restarts": 1, "steps": 100, "stop_in_budget": True, "p_init": 0.8}
    return [
        (stage.attack.name, {k: v for k, v in vars(stage.attack).items() if usual.get(k) != v})
        for stage in AutoAttack(version=version).stages(norm)
    ]


class Stairs(nn.Module):
    """A model whose gradient by the image is zero everywhere, and whose answers a query attack can still follow."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model((x * 16).round() / 16)


class Jitters(nn.Module):
    """A model that answers at random, from a generator of its own."""

    def __init__(self, model):
        super().__init__()
        self.model, self.generator = model, torch.Generator().manual_seed(0)

    def forward(self, x):
        return self.model(x + 0.05 * torch.randn(x.shape, generator=self.generator))


@pytest.fixture(scope="module")
def standard(digits):
    """Who survives the standard version at full length, and what it cost."""

    def predict(images):
        with torch.no_grad():
            return digits.robust(torch.from_numpy(images)).numpy()

    result = evaluate(
        predict, digits.split.take(np.arange(50)), AutoAttack(), THREATS["linf"], seed=0, model=digits.robust
    )
    return result.robust, result.forward_passes + result.backward_passes


def test_standard_at_full_length_is_as_strong_as_the_reference_in_no_more_passes(digits, standard):
    robust, passes = standard
    theirs, their_passes = official(digits.robust, take(digits.split, 50), THREATS["linf"])
    assert 10 < theirs.sum() < 40
    assert abs(int(robust.sum()) - int(theirs.sum())) <= 1
    assert passes <= 1.05 * their_passes


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_standard_is_as_strong_as_the_reference_in_other_norms(digits, predict_with, norm):
    split = take(digits.split, SAMPLES)
    theirs, their_passes = official(digits.robust, split, THREATS[norm], **SHORT)
    robust, passes = ours(digits.robust, split, THREATS[norm], predict_with, **SHORT)
    assert 2 < theirs.sum() < SAMPLES - 2
    assert abs(int(robust.sum()) - int(theirs.sum())) <= 1
    assert passes <= 1.05 * their_passes


@pytest.mark.parametrize("version", ["plus", "rand"])
def test_the_other_versions_are_as_strong_as_the_reference(digits, predict_with, version):
    split = take(digits.split, SAMPLES)
    model = Jitters(digits.robust) if version == "rand" else digits.robust
    theirs, their_passes = official(model, split, THREATS["linf"], version, **SHORT)
    robust, passes = ours(model, split, THREATS["linf"], predict_with, version=version, **SHORT)
    noise = 3 if version == "rand" else 1
    assert int(robust.sum()) <= int(theirs.sum()) + noise
    assert passes <= 1.05 * their_passes


def test_economy_ends_where_standard_ends_for_a_fraction_of_the_passes(digits, predict_with, standard):
    survivors, dear = standard
    economy, cheap = ours(digits.robust, take(digits.split, 50), THREATS["linf"], predict_with, version="economy")
    assert int(economy.sum()) <= int(survivors.sum()) + 1
    assert cheap < dear / 4


def test_the_stages_are_the_published_ones():
    ce, dlr = ("apgd-ce", {"loss": "ce"}), ("apgd-dlr", {"loss": "dlr"})
    target, square = ("apgd-t", {"targets": 9}), ("square", {"queries": 5000, "rescale": False})
    fab_t = ("fab-t", {"targets": 9})
    often = {"restarts": 5}
    assert settings_of("standard") == settings_of("standard", "l2") == [ce, target, fab_t, square]
    assert settings_of("standard", "l1") == [
        ("apgd-ce", {"loss": "ce"} | often),
        ("apgd-t", {"targets": 5}),
        fab_t,
        square,
    ]
    assert settings_of("plus") == [
        ("apgd-ce", often | {"loss": "ce"}),
        ("apgd-dlr", often | {"loss": "dlr"}),
        ("fab", often | {"classes": 9}),
        square,
        target,
        fab_t,
    ]
    assert settings_of("rand") == [(name, settings | {"eot": 20}) for name, settings in (ce, dlr)]


def test_an_image_leaves_with_the_attack_that_breaks_it(digits):
    """Three images that the first start breaks cost what one stage costs, not what four do."""
    x, y = torch.from_numpy(digits.split.images[:20]), torch.from_numpy(digits.split.labels[:20])
    model = CountedModel(digits.plain)
    broken = AutoAttack()(model, x, y, ThreatModel(eps=0.5), torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert not bool((digits.plain(broken).argmax(1) == y).any())
    assert model.forward_images + model.backward_images < 20 * 30


def test_promising_by_hand():
    clean, now = torch.full((4,), 6.0), torch.tensor([2.0, 2.1, 5.69, 5.71])
    # falls of 4, 3.9, 0.31 and 0.29: half of the fall reaches 2 only in the first; twice the noise is 0.3
    assert promising(clean, now, torch.full((4,), 0.15), 0.5).tolist() == [True, False, False, True]


def test_economy_asks_square_where_gradients_are_blind(digits, predict_with):
    model, split = Stairs(digits.plain), take(digits.split, 40)
    result = evaluate(predict_with(model), split, AutoAttack(version="economy"), THREATS["linf"], seed=0, model=model)
    assert result.zero_gradient_share == 1
    assert result.robust_accuracy < 0.85 * result.clean_accuracy


@pytest.mark.parametrize("version", ["standard", "plus", "rand", "economy"])
@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_work_in_every_version(version, classes):
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, classes))
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        nn.init.uniform_(parameter, -1, 1, generator=generator)
    x = torch.rand(20, 1, 4, 4, generator=generator)
    with torch.no_grad():
        y = net(x).argmax(1)
    attack = AutoAttack(version=version, steps=10, queries=50)
    found = attack(net, x, y, ThreatModel(eps=0.2), torch.Generator().manual_seed(0))
    with torch.no_grad():
        broken = net(found).argmax(1) != y
        gaps = net(x).gather(1, y[:, None]) - net(x)
    reach = 0.2 * (net[1].weight[y][:, None] - net[1].weight[None]).abs().sum(2)
    clear = ((gaps < 0.8 * reach) & (gaps > 0)).any(dim=1) & (Ball.around(x, ThreatModel(eps=0.2)).low > 0).all(
        (1, 2, 3)
    )
    assert bool(broken[clear].all())


def test_results_do_not_depend_on_the_batch(digits):
    x, y = torch.from_numpy(digits.split.images[:12]), torch.from_numpy(digits.split.labels[:12])
    attack = AutoAttack(version="economy", steps=8, queries=60)

    def run(rows):
        return attack(digits.robust, x[rows], y[rows], THREATS["linf"], torch.Generator().manual_seed(3))

    parts = torch.cat([run(slice(0, 5)), run(slice(5, 12))])
    torch.testing.assert_close(run(slice(0, 12)), parts, atol=1e-5, rtol=0)


def test_without_a_stop_a_broken_image_is_driven_on(digits):
    x, y = torch.from_numpy(digits.split.images[:30]), torch.from_numpy(digits.split.labels[:30])

    def margins(stop):
        attack = AutoAttack(version="economy", stop_at_success=stop)
        with torch.no_grad():
            logits = digits.plain(attack(digits.plain, x, y, THREATS["linf"], torch.Generator().manual_seed(0)))
        return (logits.gather(1, y[:, None]) - logits.scatter(1, y[:, None], -torch.inf).amax(1, keepdim=True)).median()

    assert margins(stop=False) < 1.2 * margins(stop=True) < 0


@pytest.mark.parametrize("settings", [{"version": "turbo"}, {"steps": 0}, {"queries": -1}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(OptionError, match="autoattack"):
        AutoAttack(**settings)


def published(name, samples):
    """A published network for images in [0, 1], and its first test images."""
    file = Path(__file__).resolve().parents[3] / "benchmarks" / "architectures.py"
    spec = spec_from_file_location("architectures_of_autoattack", file)
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    net = module.NETS[name]
    loaded = load_model(Path(environ["RCTK_MODELS"]) / net.file, arch=net.arch, input=net.input)
    return Normalised(loaded.module, net.input).eval().requires_grad_(False), take(read_split(net.data), samples)


@pytest.mark.data
@pytest.mark.skipif("RCTK_DATA" not in environ, reason="RCTK_DATA names no folder of data sets")
@pytest.mark.skipif("RCTK_MODELS" not in environ, reason="RCTK_MODELS names no folder of published networks")
@pytest.mark.parametrize(("name", "eps", "samples"), [("cnn-a", 2 / 255, 8), ("resnet20", 2 / 255, 12)])
def test_published_networks_end_as_under_the_reference(predict_with, name, eps, samples):
    model, split = published(name, samples)
    theirs, their_passes = official(model, split, ThreatModel(eps=eps), **SHORT)
    robust, passes = ours(model, split, ThreatModel(eps=eps), predict_with, **SHORT)
    assert abs(int(robust.sum()) - int(theirs.sum())) <= 1
    assert passes <= 1.05 * their_passes
    economy, _ = ours(model, split, ThreatModel(eps=eps), predict_with, version="economy")
    assert int(economy.sum()) <= int(theirs.sum()) + 1
