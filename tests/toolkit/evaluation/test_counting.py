from __future__ import annotations

import numpy as np
import torch
from torch import nn

from rctk.evaluation.counted_model import CountedModel
from rctk.evaluation.counting import Counted


def predict(images):
    return np.stack([images.sum(axis=(1, 2, 3)), np.zeros(len(images))], axis=1)


X = np.arange(10, dtype=np.float32).reshape(10, 1, 1, 1) / 10


def test_batches_are_cut_to_size_and_put_together_again():
    sizes = []
    counted = Counted(lambda x: (sizes.append(len(x)), predict(x))[1], 10, 4)
    np.testing.assert_array_equal(counted(X), predict(X))
    assert sizes == [4, 4, 2]
    assert counted.queries.tolist() == [1] * 10


def test_queries_are_booked_through_the_group():
    counted = Counted(predict, 10, 4).about(np.array([2, 5, 9]))
    counted(X[:3])
    counted.book(np.array([1, 1]))
    counted(X[:2])
    assert counted.queries.tolist() == [0, 0, 1, 0, 0, 3, 0, 0, 0, 1]
    counted(X[:2])  # nobody said which
    assert (counted.unbooked, counted.total) == (2, 7)


def test_classes_are_those_of_the_rows():
    counted = Counted(predict, 10, 4)
    assert counted.classes(X[:2], np.array([0, 7])).tolist() == [0, 0]
    assert counted.queries[[0, 7]].tolist() == [1, 1]
    assert counted.classes(X[:0], np.empty(0, dtype=np.int64)).tolist() == []


def test_a_model_counts_images_forward_and_backward_and_blind_gradients():
    net = nn.Sequential(nn.ReLU(), nn.Flatten())
    model = CountedModel(net)
    x = torch.tensor([[[[1.0]]], [[[-1.0]]], [[[2.0]]]], requires_grad=True)
    model(x).sum().backward()
    with torch.no_grad():
        model(x)
    model(x.detach())
    assert (model.forward_images, model.backward_images, model.zero_gradients) == (9, 3, 1)
    assert x.grad.flatten().tolist() == [1, 0, 1]
