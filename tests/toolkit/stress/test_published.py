import numpy as np
import pytest

from rctk.data.split import Split
from rctk.evaluation.subjects import Subject
from rctk.stress.plan import plan, severities
from rctk.stress.published import find_published
from rctk.stress.run import stress
from rctk_kernels.errors import DataError, OptionError

M = 6


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Published arrays of a test set of six images; pixel values tell type, severity and image."""
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    for base, name in ((0, "fog"), (100, "snow")):
        values = base + 10 * np.repeat(np.arange(1, 6), M) + np.tile(np.arange(M), 5)
        np.save(folder / f"{name}.npy", np.broadcast_to(values[:, None, None, None], (5 * M, 4, 4, 3)).astype(np.uint8))
    np.save(folder / "labels.npy", np.tile(np.arange(M) % 3, 5).astype(np.uint8))
    monkeypatch.setenv("RCTK_DATA", str(tmp_path))
    return folder


def split(indices=(0, 1, 2, 3, 4, 5), name="cifar10:test"):
    rows = np.array(indices)
    images = np.full((len(rows), 3, 4, 4), 0.5, dtype=np.float32)
    return Split(name=name, images=images, labels=(rows % 3).astype(np.int64), indices=rows)


def test_the_right_block_and_the_right_images_are_read(root):
    images = find_published(split()).images("snow", 3, np.array([4, 1]), (3, 4, 4))
    assert images.dtype == np.float32
    assert images.shape == (2, 3, 4, 4)
    assert np.rint(images[:, 0, 0, 0] * 255).tolist() == [134, 131]


def test_arrays_are_used_where_they_are_and_the_rest_is_generated(root):
    conditions = plan(split(), ["fog", "frost"], [2], [], seed=0)
    assert [(c.test, c.origin) for c in conditions] == [("frost", "generated"), ("fog", "published")]
    part = split([3, 5])
    made = conditions[1].make(0, part.images, part.indices)
    assert np.rint(made[:, 0, 0, 0] * 255).tolist() == [23, 25]


def test_generated_images_can_be_asked_for(root):
    assert [c.origin for c in plan(split(), ["fog"], [2], [], source="generated", seed=0)] == ["generated"]


def test_published_images_can_be_demanded(root):
    assert [c.origin for c in plan(split(), ["fog"], [2], [], source="published", seed=0)] == ["published"]
    with pytest.raises(DataError, match="no published arrays of frost; put the arrays into CIFAR-10-C"):
        plan(split(), ["fog", "frost"], [2], [], source="published", seed=0)
    with pytest.raises(DataError, match="there are none for digits:test"):
        plan(split(name="digits:test"), ["fog"], [2], [], source="published", seed=0)


def test_other_data_sets_have_none(root, monkeypatch):
    assert find_published(split(name="mine:test")) is None
    monkeypatch.delenv("RCTK_DATA")
    assert find_published(split()) is None


def test_labels_in_another_order_are_refused(root):
    np.save(root / "labels.npy", np.zeros(5 * M, dtype=np.uint8))
    with pytest.raises(DataError, match="labels differ"):
        find_published(split())


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((5 * M, 4, 4, 3), dtype=np.float32),
        np.zeros((5 * M, 8, 8, 3), dtype=np.uint8),
        np.zeros((5 * M + 1, 4, 4, 3), dtype=np.uint8),
    ],
)
def test_arrays_of_another_form_are_refused(root, array):
    np.save(root / "fog.npy", array)
    with pytest.raises(DataError, match="five severities"):
        find_published(split()).images("fog", 1, np.array([0]), (3, 4, 4))


def test_an_array_that_is_too_short_is_refused(root):
    np.save(root / "fog.npy", np.zeros((5 * 3, 4, 4, 3), dtype=np.uint8))
    with pytest.raises(DataError, match="holds 3 images per severity, image 5"):
        find_published(split()).images("fog", 1, np.array([5]), (3, 4, 4))


def test_a_damaged_array_is_refused_and_no_object_is_unpickled(root):
    (root / "fog.npy").write_bytes(b"\x93NUMPY broken")
    with pytest.raises(DataError, match=r"fog\.npy is no readable NumPy array"):
        find_published(split()).images("fog", 1, np.array([0]), (3, 4, 4))
    np.save(root / "fog.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(DataError, match="no readable"):
        find_published(split()).images("fog", 1, np.array([0]), (3, 4, 4))


def test_a_run_on_published_arrays_says_nothing_about_generated_ones(root):
    subject = Subject(name="float", predict=lambda x: np.tile(np.float32([1, 0, 0]), (len(x), 1)))
    result = stress([subject], split(), plan(split(), ["fog"], [1, 2], [], seed=0), batch_size=4)
    assert result.notes == ()
    assert [cell.origin for cell in result.cells] == ["published", "published"]


@pytest.mark.parametrize(
    ("text", "expected"), [("1..5", (1, 2, 3, 4, 5)), ("3", (3,)), ("5,1", (1, 5)), ("2-3, 5", (2, 3, 5))]
)
def test_severities_are_read(text, expected):
    assert severities(text) == expected


@pytest.mark.parametrize("text", ["", "a", "1...5", "0", "1..6", "4..2"])
def test_other_severities_are_refused(text):
    with pytest.raises(OptionError):
        severities(text)
