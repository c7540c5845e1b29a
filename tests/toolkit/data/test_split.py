import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rctk.data import Split, check_labels
from rctk.data.split import stratified_rows
from rctk_kernels.errors import DataError


def split(labels, **more):
    labels = np.asarray(labels, dtype=np.int64)
    images = np.linspace(0, 1, len(labels) * 4, dtype=np.float32).reshape(-1, 1, 2, 2)
    return Split(name="toy:test", images=images, labels=labels, **more)


def test_sample_keeps_class_shares_and_order_by_hand():
    toy = split([0] * 60 + [1] * 30 + [2] * 10)
    drawn = toy.sample(10, seed=3)
    assert np.bincount(drawn.labels).tolist() == [6, 3, 1]
    assert (np.diff(drawn.indices) > 0).all()
    np.testing.assert_array_equal(drawn.images, toy.images[drawn.indices])
    assert drawn.sample(5, seed=0).indices.tolist() == [
        i for i in drawn.indices if i in drawn.sample(5, seed=0).indices
    ]


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(any),
    count=st.integers(1, 100),
    seed=st.integers(0, 9),
)
def test_every_class_is_within_one_of_its_share(sizes, count, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows = stratified_rows(labels, count, seed)
    assert len(rows) == len(set(rows.tolist())) == min(count, len(labels))
    share = np.array(sizes) * len(rows) / len(labels)
    assert (np.abs(np.bincount(labels[rows], minlength=len(sizes)) - share) < 1).all()
    np.testing.assert_array_equal(rows, stratified_rows(labels, count, seed))


def test_other_seeds_draw_other_images():
    toy = split([0, 1] * 50)
    draws = {tuple(toy.sample(10, seed).indices.tolist()) for seed in range(20)}
    assert len(draws) == 20


def test_a_draw_of_all_is_the_split_itself():
    toy = split([0, 1, 1])
    assert toy.sample(None, 0) is toy
    assert toy.sample(3, 0) is toy
    assert toy.sample(99, 0) is toy


@pytest.mark.parametrize(("count", "seed"), [(0, 0), (-3, 0), (1, -1)])
def test_senseless_draws_are_refused(count, seed):
    with pytest.raises(DataError, match=r"must be|or more"):
        split([0, 1]).sample(count, seed)


def test_fingerprint_is_the_digest_of_bytes_and_sees_order():
    toy = split([0, 1])
    assert toy.fingerprint == hashlib.sha256(toy.images.tobytes() + toy.labels.tobytes()).hexdigest()
    assert toy.take(np.array([1, 0])).fingerprint != toy.fingerprint
    assert split([]).fingerprint == hashlib.sha256(b"").hexdigest()


def test_batches_cover_everything_once():
    batches = list(split(range(7)).batches(3))
    assert [len(y) for _, y in batches] == [3, 3, 1]
    assert np.concatenate([y for _, y in batches]).tolist() == list(range(7))


def test_shapes_that_do_not_fit_are_refused():
    images = np.zeros((2, 1, 2, 2), dtype=np.float32)
    with pytest.raises(DataError, match=r"\(2, 1, 2, 2\) and \(3,\)"):
        Split(name="toy", images=images, labels=np.zeros(3, dtype=np.int64))
    with pytest.raises(DataError, match="one index per image"):
        Split(name="toy", images=images, labels=np.zeros(2, dtype=np.int64), indices=np.arange(3))


def test_check_labels_names_the_first_bad_image_of_the_whole_set():
    toy = split([0, 1, 9, 12]).take(np.array([1, 2, 3]))
    check_labels(toy, 13)
    with pytest.raises(DataError, match=r"toy:test: image 2 has label 9, .* 5 classes, 0 to 4 \(2 of 3"):
        check_labels(toy, 5)
