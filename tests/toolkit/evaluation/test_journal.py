from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rctk.data import read_split
from rctk.evaluation.journal import Journal
from rctk.evaluation.suite import Subject, attack_subjects
from rctk.threat import ThreatModel

ATTACKS = ("pgd:steps=5", "square:queries=20")
THREAT = ThreatModel(eps=0.15)


@pytest.fixture(scope="module")
def split():
    return read_split("digits:test", samples=40)


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    train = read_split("digits:train")
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(torch.from_numpy(train.images)), torch.from_numpy(train.labels)).backward()
        optimizer.step()
    return net.eval()


class PowerError(Exception):
    """The power went off."""


def subjects(module, calls=10**9):
    """Float and a rounded engine; the engine stops for good after ``calls`` batches."""
    left = iter(range(calls))

    def predict(images):
        with torch.no_grad():
            return module(torch.from_numpy(images)).numpy()

    def engine(images):
        if next(left, None) is None:
            raise PowerError
        return np.round(predict(images), 1)

    return [
        Subject(name="float", predict=predict, model=module),
        Subject(name="engine", predict=engine, model=module),
    ]


def attack(module, split, journal=None, calls=10**9):
    return attack_subjects(subjects(module, calls), split, ATTACKS, THREAT, seed=3, batch_size=8, journal=journal)


def same(first, second):
    for name in ("float", "engine"):
        assert np.array_equal(first.robust[name], second.robust[name])
        assert np.array_equal(first.adversarial[name], second.adversarial[name])
        assert np.array_equal(first.queries[name], second.queries[name])
    for one, other in zip(first.entries, second.entries, strict=True):
        costs = [(e.queries, e.forward_passes, e.backward_passes, e.notes) for e in (one, other)]
        assert costs[0] == costs[1]


def test_a_journal_changes_nothing(module, split, tmp_path):
    same(attack(module, split), attack(module, split, Journal(tmp_path, {"seed": 3})))


def test_a_second_run_finds_every_batch(module, split, tmp_path):
    first, second = Journal(tmp_path, {"seed": 3}), Journal(tmp_path, {"seed": 3})
    one, other = attack(module, split, first), attack(module, split, second)
    assert first.found == 0
    assert second.found == len(list(first.folder.iterdir())) > 1
    same(one, other)


@pytest.mark.parametrize("calls", [2, 6, 10])
def test_a_run_that_was_stopped_ends_with_the_same_result(module, split, tmp_path, calls):
    with pytest.raises(PowerError):
        attack(module, split, Journal(tmp_path, {"seed": 3}), calls)
    again = Journal(tmp_path, {"seed": 3})
    same(attack(module, split, again), attack(module, split))
    assert not list(tmp_path.rglob("*.part"))


def test_other_facts_find_nothing(module, split, tmp_path):
    attack(module, split, Journal(tmp_path, {"model": "a"}))
    other = Journal(tmp_path, {"model": "b"})
    attack(module, split, other)
    assert other.found == 0


def test_a_damaged_batch_is_made_again(module, split, tmp_path):
    first = Journal(tmp_path, {"seed": 3})
    expected = attack(module, split, first)
    files = sorted(first.folder.iterdir())
    files[0].write_bytes(files[0].read_bytes()[:100])
    files[1].write_bytes(b"")
    again = Journal(tmp_path, {"seed": 3})
    same(attack(module, split, again), expected)
    assert again.found == len(files) - 2


def test_forgetting_leaves_nothing(module, split, tmp_path):
    journal = Journal(tmp_path / "journal", {})
    attack(module, split, journal)
    journal.forget()
    assert list(tmp_path.iterdir()) == []
