import subprocess
import sys

import numpy as np
import pytest

from rctk.data import DATASETS, read_split
from rctk.data.catalog import ANY_FOLDER, READERS
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import DataError, OptionError


def save(path, count=4, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, x=np.zeros((count, 8, 8, 3), dtype=np.uint8), y=np.zeros(count, dtype=int), **more)


def test_the_table_names_readers_that_exist():
    for row in DATASETS.values():
        assert set(row.readers) <= set(READERS)
        assert "\n" not in row.what + row.where
        assert len(row.classes) in {0, row.count}
    assert set(ANY_FOLDER) <= set(READERS)


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, rctk.data; "
        "print(sorted({'torch', 'sklearn', 'scipy', 'PIL', 'pandas', 'matplotlib', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reading_arrays_needs_only_numpy(root):
    save(root / "cifar10" / "test.npz")
    code = (
        "import sys\n"
        "for name in ('torch', 'sklearn', 'scipy', 'PIL', 'pandas'): sys.modules[name] = None\n"
        "from rctk.data import read_split; print(len(read_split('cifar10')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "4"


def test_a_missing_package_is_named_with_its_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.delitem(sys.modules, "rctk.data.readers.digits", raising=False)
    with pytest.raises(DataError, match=r"needs sklearn.*pip install 'rctk\[host\]'"):
        read_split("digits")


@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"digits"}))
def test_an_unset_data_folder_says_how_to_set_it_and_what_to_put_there(monkeypatch, name):
    monkeypatch.delenv("RCTK_DATA", raising=False)
    with pytest.raises(DataError, match=rf"RCTK_DATA is not set; run `export RCTK_DATA=FOLDER` and put there {name}/"):
        read_split(name)


@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"digits"}))
def test_a_missing_set_says_which_files_are_expected(root, name):
    with pytest.raises(DataError, match=rf"{name}:test is not in .*; put there {name}/.*SPLIT\.npz") as error:
        read_split(f"{name}:test")
    assert ("--download" in str(error.value)) == (name != "gtsrb")
    assert not list(root.iterdir())


def test_an_unofficial_split_lists_the_official_ones(root):
    with pytest.raises(DataError, match=r"svhn:val is not in .*official splits: train, test, extra"):
        read_split("svhn:val")


def test_an_unknown_name_suggests_the_nearest(root):
    (root / "my-signs").mkdir()
    with pytest.raises(OptionError, match="unknown data set 'cifr10'; did you mean 'cifar10'"):
        read_split("cifr10:test")
    with pytest.raises(OptionError, match="did you mean 'my-signs'"):
        read_split("my-sign")


def test_any_folder_below_the_data_folder_has_a_name(root):
    save(root / "my-signs" / "test_night.npz")
    assert read_split("my-signs:test_night").name == "my-signs:test_night"
    with pytest.raises(DataError, match=r"holds no split 'test'; expected test\.npz"):
        read_split("my-signs")


@pytest.mark.parametrize("folder", ["a:b", "a:b:c", "c:test"])
def test_paths_may_hold_colons(tmp_path, folder):
    save(tmp_path / folder / "x.npz")
    save(tmp_path / folder / "more" / "val.npz")
    for text in ("x.npz", "x.npz:test", "more:val"):
        assert read_split(f"{tmp_path}/{folder}/{text}").name == f"{tmp_path}/{folder}/{text}"


def test_relative_and_home_paths_are_understood(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RCTK_DATA", raising=False)
    save(tmp_path / "set" / "test.npz")
    for text in ("set", "./set", "~/set", "set/test.npz", "set:test"):
        assert len(read_split(text)) == 4
    assert read_split("set").name == "set:test"


def test_a_known_name_is_not_taken_from_the_current_folder(tmp_path, root, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "cifar10" / "test.npz")
    with pytest.raises(DataError, match="cifar10:test is not in"):
        read_split("cifar10")
    assert len(read_split("./cifar10")) == 4


@pytest.mark.parametrize("text", ["", " ", "~nobody-here/x", "x" * 5000, "no/such/file.npz", "a\0b/c", "/dev/null"])
def test_text_that_leads_nowhere_is_one_line(root, text):
    with pytest.raises((DataError, OptionError)) as error:
        read_split(text)
    assert "\n" not in str(error.value)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "set.csv").write_text("1,2")
    with pytest.raises(DataError, match=r"set\.csv is no data set that rctk reads"):
        read_split(f"{tmp_path}/set.csv")


def test_another_shape_than_the_models_is_refused_with_both(root):
    save(root / "cifar10" / "test.npz")
    read_split("cifar10", input=InputSpec(channels=3, height=8, width=8))
    for spec in (InputSpec(channels=1, height=8, width=8), InputSpec(channels=3, height=32, width=32)):
        wanted = "x".join(map(str, spec.shape))
        with pytest.raises(DataError, match=f"images are 3x8x8 .* the model takes {wanted}; choose"):
            read_split("cifar10", input=spec)


def test_an_empty_set_is_refused(root):
    save(root / "cifar10" / "test.npz", count=0)
    with pytest.raises(DataError, match=r"cifar10:test: .*test\.npz holds no images"):
        read_split("cifar10")


def test_labels_outside_a_known_set_are_refused(root):
    (root / "cifar10").mkdir()
    np.savez(root / "cifar10" / "test.npz", x=np.zeros((2, 8, 8, 3), dtype=np.uint8), y=[3, 10])
    with pytest.raises(DataError, match="cifar10:test: image 1 has label 10, but there are 10 classes"):
        read_split("cifar10")
