from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from rctk.attacks.attack import query
from rctk.attacks.substitute import SubstituteAttack
from rctk.data.split import Split
from rctk.evaluation.judge import evaluate
from rctk.evaluation.sources import source
from rctk.evaluation.suite import Subject, attack_subjects
from rctk.substitute import SubstituteSettings, train_substitute
from rctk.substitute.network import substitute_network
from rctk.substitute.train import _stepped, classify_all
from rctk.threat import ThreatModel
from rctk_kernels.errors import DataError, OptionError

SHORT = SubstituteSettings(rounds=2, epochs=8)


class Oracle:
    """A nearest-mean classifier of digits, in NumPy, that counts what it is asked and says nothing but classes."""

    def __init__(self):
        data = load_digits()
        self.images = (data.images / 16).astype(np.float32)[:, None]
        self.labels = data.target.astype(np.int64)
        self.means = np.stack([self.images[self.labels == k].mean(axis=0).ravel() for k in range(10)])
        self.asked, self.booked = 0, []

    def book(self, rows):
        self.booked.extend(rows.tolist())

    def __call__(self, images):
        assert images.min() >= 0
        assert images.max() <= 1
        self.asked += len(images)
        distance = ((images.reshape(len(images), 1, -1) - self.means) ** 2).sum(axis=2)
        return np.eye(10, dtype=np.float32)[distance.argmin(axis=1)]


@pytest.fixture(scope="module")
def oracle():
    return Oracle()


@pytest.fixture(scope="module")
def trained(oracle):
    oracle.asked, oracle.booked = 0, []
    substitute = train_substitute(oracle, oracle.images[:120], SubstituteSettings(), seed=0)
    return substitute, oracle.asked, list(oracle.booked)


def test_every_question_to_the_engine_is_counted_and_booked_to_a_seed(trained):
    substitute, asked, booked = trained
    # 120 seeds doubled three times, then three rounds of 400
    assert substitute.queries == asked == 120 * 8 + 3 * 400 == SubstituteSettings().queries(120)
    assert len(booked) == asked
    assert set(booked) == set(range(120))
    assert min(np.bincount(booked)) >= 8


def test_it_imitates_the_engine_on_images_that_it_never_saw(oracle, trained):
    substitute = trained[0]
    unseen = oracle.images[1000:1300]
    agreement = (classify_all(substitute.model, unseen) == oracle(unseen).argmax(1)).mean()
    assert agreement > 0.9
    assert len(substitute.agreement) == 6
    assert all(0.5 < share <= 1 for share in substitute.agreement)


def test_its_candidates_break_the_engine_which_has_no_gradients(oracle, trained):
    images = oracle.images[1000:1100]
    split = Split(name="digits", images=images, labels=oracle(images).argmax(1))
    engine, threat = Subject(name="engine", predict=oracle), ThreatModel(eps=0.2)
    run = {"seed": 0, "batch_size": 100}
    ours = attack_subjects([engine, source("substitute", trained[0].model)], split, ["apgd-ce:steps=20"], threat, **run)
    noise = attack_subjects([engine], split, ["noise:tries=5"], threat, **run)
    assert ours.entries[0].tier("engine") == "transfer-substitute"
    assert ours.robust_accuracy("engine") < noise.robust_accuracy("engine") - 0.3


def test_the_same_seed_gives_the_same_network_and_the_global_generator_stays(oracle):
    state = torch.get_rng_state()
    first, second = (train_substitute(oracle, oracle.images[:30], SHORT, seed=3) for _ in range(2))
    other = train_substitute(oracle, oracle.images[:30], SHORT, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    x = torch.from_numpy(oracle.images[:20])
    assert torch.equal(first.model(x), second.model(x))
    assert not torch.equal(first.model(x), other.model(x))
    assert not first.model.training


def test_augmenting_steps_follow_the_sign_of_the_gradient_of_the_label(oracle):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3, 2, bias=False))
    net[1].weight.data = torch.tensor([[1.0, -2.0, 0.0], [-1.0, 3.0, 1.0]])
    images = np.array([0.5, 0.5, 0.95] * 2, dtype=np.float32).reshape(2, 1, 1, 3)
    out = _stepped(net, images, np.array([0, 1]), 0.1)
    np.testing.assert_allclose(out.reshape(2, 3), [[0.6, 0.4, 0.95], [0.4, 0.6, 1.0]], rtol=1e-6)


def test_the_sign_turns_after_three_rounds(oracle, monkeypatch):
    steps = []
    from rctk.substitute import train

    def noted(model, images, labels, step):
        steps.append(step)
        return _stepped(model, images, labels, step)

    monkeypatch.setattr(train, "_stepped", noted)
    settings = SubstituteSettings(rounds=7, epochs=1, doubling=1, reservoir=5)
    substitute = train_substitute(oracle, oracle.images[:10], settings, seed=0)
    assert steps == [0.1, 0.1, 0.1, -0.1, -0.1, -0.1, 0.1]
    assert substitute.queries == 10 + 10 + 6 * 5 == settings.queries(10)


def test_nothing_but_the_class_is_used(oracle):
    def scaled(images):
        return query(oracle, images, np.arange(len(images))) * 7 - 3

    one, two = (train_substitute(f, oracle.images[:30], SHORT, seed=0) for f in (oracle, scaled))
    x = torch.from_numpy(oracle.images[:20])
    assert torch.equal(one.model(x), two.model(x))


@pytest.mark.parametrize(("shape", "flat"), [((1, 8, 8), 64 * 16), ((3, 32, 32), 64 * 64), ((2, 5, 20), 64 * 3 * 10)])
def test_the_network_fits_the_image(shape, flat):
    net = substitute_network(shape, 7, "")
    assert net(torch.zeros(2, *shape)).shape == (2, 7)
    assert next(m for m in net if isinstance(m, nn.Linear)).in_features == flat
    assert substitute_network(shape, 7, "mlp:hidden=8")(torch.zeros(2, *shape)).shape == (2, 7)


def test_the_attack_by_name_books_every_query_to_an_image(oracle):
    images = oracle.images[1000:1040]
    split = Split(name="digits", images=images, labels=oracle(images).argmax(1))
    attack = SubstituteAttack(rounds=4, epochs=4, reservoir=30, steps=10)
    oracle.asked = 0
    result = evaluate(oracle, split, attack, ThreatModel(eps=0.3), seed=0)
    assert result.queries.sum() == oracle.asked == 40 * 8 + 30 + 2 * 40
    assert result.robust_accuracy < 0.9
    assert result.notes == ()
    assert attack.passes == 8 + 30


def test_bad_settings_are_refused(oracle):
    with pytest.raises(DataError, match="needs seed images, got 0"):
        train_substitute(oracle, oracle.images[:0], SHORT, seed=0)
    for settings in ({"rounds": -1}, {"epochs": 0}, {"step": 0.0}, {"lr": -1.0}):
        with pytest.raises(OptionError, match="substitute"):
            SubstituteSettings(**settings)
    with pytest.raises(OptionError, match="rounds of 0 or more"):
        SubstituteAttack(steps=0)
