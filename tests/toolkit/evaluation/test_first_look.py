"""What a model says before anybody attacks it is looked at, mended where that loses nothing, and told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rctk.data.split import Split
from rctk.evaluation.first_look import FirstLook, check_class_names
from rctk.evaluation.scores import Scored
from rctk.evaluation.subjects import Subject
from rctk_kernels.errors import DataError, EngineError


def split(count=6, classes=()):
    images = np.random.default_rng(0).random((count, 1, 2, 2), dtype=np.float32)
    return Split(name="noise", images=images, labels=np.zeros(count, dtype=np.int64), classes=classes)


def logits(images):
    flat = images.reshape(len(images), -1)
    return np.stack([flat[:, 0], flat[:, 1], flat[:, 2]], axis=1) * np.float32(7)


def softmax(images):
    powers = np.exp(logits(images))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def test_logits_are_left_alone():
    look, subject = FirstLook(split(), 4), Subject(name="engine", predict=logits)
    assert look(subject) is subject
    assert look.notes == []
    assert look.facts["engine"]["score_resolution"]["distinct"] == 18
    assert look.facts["engine"]["probabilities"] is False


def test_probabilities_become_logits_up_to_a_constant_per_image():
    look, images = FirstLook(split(), 4), split().images
    found = look(Subject(name="engine", predict=softmax)).predict(images)
    assert "answers probabilities, not logits: attacks read their logarithm" in look.notes[0]
    shift = found - logits(images)
    assert np.ptp(shift, axis=1).max() < 1e-4
    assert np.array_equal(found.argmax(axis=1), softmax(images).argmax(axis=1))


def test_the_differentiable_form_and_the_variant_become_logits_too():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Softmax(dim=1))
    look = FirstLook(split(), 4)
    forms = [look(Subject(name=name, predict=Scored(softmax, softmax), model=model)) for name in ("twin", "engine")]
    assert forms[0].model is forms[1].model  # an ensemble must see that they are one
    images = torch.from_numpy(split().images)
    assert torch.allclose(forms[0].model(images), model(images).log())
    assert np.allclose(forms[0].predict.scores(split().images), np.log(softmax(split().images)), atol=1e-5)


def test_one_hot_answers_are_told():
    look = FirstLook(split(), 4)
    look(Subject(name="engine", predict=lambda x: np.eye(3, dtype=np.float32)[logits(x).argmax(axis=1)]))
    assert "100% of them are exactly 0 or 1, where attacks are blind" in " ".join(look.notes)


def test_other_answers_for_the_same_image_are_measured():
    rng, look = np.random.default_rng(0), FirstLook(split(), 4)
    look(Subject(name="engine", predict=lambda x: rng.standard_normal((len(x), 3)).astype(np.float32)))
    assert "the model answers at random" in look.notes[0]
    assert look.facts["engine"]["changed_classes"] > 0


def test_coarse_logits_are_told():
    look = FirstLook(split(64), 64)
    look(Subject(name="engine", predict=lambda x: np.rint(logits(x))))
    assert "score attacks see little" in look.notes[0]


def test_nan_and_other_numbers_of_classes_are_refused():
    with pytest.raises(EngineError, match="NaN for 4 of 4"):
        FirstLook(split(4), 4)(Subject(name="engine", predict=lambda x: np.full((len(x), 3), np.nan, np.float32)))
    with pytest.raises(DataError, match="engine answers 3 logits and the bundle names 2"):
        FirstLook(split(), 4, ("a", "b"))(Subject(name="engine", predict=logits))
    look = FirstLook(split(), 4)
    look(Subject(name="float", predict=logits))
    with pytest.raises(DataError, match="engine answers 2 logits and float 3"):
        look(Subject(name="engine", predict=lambda x: logits(x)[:, :2]))


def test_classes_in_another_order_are_refused_and_other_names_are_not():
    with pytest.raises(DataError, match="class 0 is 'cat' in the data and 'dog' in the model"):
        check_class_names(split(classes=("cat", "dog")), ("dog", "cat"))
    check_class_names(split(classes=("cat", "dog")), ("cat", "dog"))
    check_class_names(split(classes=("cat", "dog")), ("0", "1"))
    check_class_names(split(), ("dog", "cat"))
