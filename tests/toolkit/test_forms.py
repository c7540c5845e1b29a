"""The forms of a deployment that attacks meet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rctk import forms
from rctk.deployment import open_deployment
from rctk.forms import check_forms, need_gradients, open_forms
from rctk_kernels.errors import OptionError

BUNDLE = Path(__file__).parents[1] / "device" / "data" / "bundle"


@pytest.fixture
def deployment():
    with open_deployment(BUNDLE) as found:
        yield found


@pytest.fixture
def images():
    return np.random.default_rng(0).random((8, 1, 8, 8), dtype=np.float32)


def test_each_form_is_opened_once_in_the_order_asked_for(deployment):
    with open_forms(deployment, ("twin", "float", "twin", "engine"), "onnxruntime") as subjects:
        assert [subject.name for subject in subjects] == ["twin", "float", "engine"]


def test_the_model_of_a_form_is_the_one_that_answers_or_its_twin(deployment, images):
    with open_forms(deployment, ("float", "twin", "engine"), "onnxruntime") as (float_, twin, engine):
        for subject in (float_, twin):
            with torch.no_grad():
                logits = subject.model(torch.from_numpy(images)).numpy()
            assert np.array_equal(subject.predict(images), logits)
        assert engine.model is twin.model  # loaded once
        assert np.array_equal(engine.predict(images).argmax(1), twin.predict(images).argmax(1))
        assert not np.array_equal(float_.predict(images), twin.predict(images))


def test_an_engine_that_is_differentiable_itself_needs_no_twin(deployment, images):
    with open_forms(deployment, ("engine",), "twin:mode=exact") as (engine,), torch.no_grad():
        assert np.array_equal(engine.predict(images), engine.model(torch.from_numpy(images)).numpy())


def test_without_gradients_the_engine_has_no_model(deployment):
    with open_forms(deployment, ("engine",), "onnxruntime", gradients=False) as (engine,):
        assert engine.model is None


def test_on_a_device_the_float_file_runs_in_the_same_engine(deployment, images, monkeypatch):
    with open_forms(deployment, ("float",), "onnxruntime") as (host,):
        expected = host.predict(images)
    monkeypatch.setattr(forms.importlib.util, "find_spec", lambda _name: None)
    with open_forms(deployment, ("float", "engine"), "onnxruntime") as subjects:
        assert [subject.model for subject in subjects] == [None, None]
        assert np.allclose(subjects[0].predict(images), expected, atol=1e-4)


def test_engines_are_closed_with_the_block(deployment, images):
    with open_forms(deployment, ("engine",), "onnxruntime") as (engine,):
        engine.predict(images)
    with pytest.raises(Exception, match="closed"):
        engine.predict(images)


@pytest.mark.parametrize(
    ("attacks", "expected"),
    [(("square:queries=5",), False), (("square", "pgd:steps=2"), True), (("noise",), False), ((), False)],
)
def test_which_attacks_differentiate(attacks, expected):
    assert need_gradients(attacks) is expected


def test_every_attack_is_looked_at_even_when_the_first_one_decides():
    with pytest.raises(OptionError, match="did you mean 'square'"):
        need_gradients(("pgd", "squar"))


def test_an_unknown_form():
    check_forms(("float", "twin", "engine"))
    with pytest.raises(OptionError, match="unknown form 'engines'; did you mean 'engine'"):
        check_forms(("engines",))
