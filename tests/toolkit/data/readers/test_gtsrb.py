import numpy as np
import pytest
from PIL import Image

from rctk.data import read_split
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import DataError

HEADER = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"


def picture(path, value, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 2 * value, 0)).save(path)


def train(folder, classes=(0, 1, 42)):
    for label in classes:
        rows = []
        for track in range(2):
            name = f"0000{track}_00029.ppm"
            picture(folder / f"{label:05}" / name, label)
            rows.append(f"{name};40;30;5;5;35;25;{label}\n")
        (folder / f"{label:05}" / f"GT-{label:05}.csv").write_text(HEADER + "".join(rows))


def final_test(folder, table, labels=(16, 1, 38)):
    table.parent.mkdir(parents=True, exist_ok=True)
    for number, label in enumerate(labels):
        picture(folder / f"{number:05}.ppm", label)
    table.write_text(HEADER + "".join(f"{n:05}.ppm;40;30;5;5;35;25;{label}\n" for n, label in enumerate(labels)))


@pytest.mark.parametrize("base", ["Final_Training/Images", "GTSRB/Final_Training/Images", "GTSRB/Training", "."])
def test_training_folders_are_read(root, base):
    train(root / "gtsrb" / base)
    split = read_split("gtsrb:train")
    assert split.images.shape == (6, 3, 32, 32)
    assert split.labels.tolist() == [0, 0, 1, 1, 42, 42]
    assert np.unique(split.images[5, 1]).tolist() == [np.float32(84 / 255)]


@pytest.mark.parametrize(
    ("table", "folder"),
    [
        ("GT-final_test.csv", "Final_Test/Images"),
        ("Final_Test/Images/GT-final_test.csv", "Final_Test/Images"),
        ("GTSRB/GT-final_test.csv", "GTSRB/Final_Test/Images"),
    ],
)
def test_test_folders_are_read(root, table, folder):
    final_test(root / "gtsrb" / folder, root / "gtsrb" / table)
    split = read_split("gtsrb", samples=2, input=InputSpec(channels=3, height=48, width=40))
    assert split.images.shape == (2, 3, 48, 40)
    assert [16, 1, 38][split.indices[1]] == split.labels[1] == round(float(split.images[1, 0, 0, 0]) * 255)


def test_pictures_are_scaled_whole(root):
    folder = root / "gtsrb" / "Final_Training" / "Images"
    train(folder, classes=(0,))
    half = np.zeros((32, 64, 3), dtype=np.uint8)
    half[:, 32:] = 255
    Image.fromarray(half).save(folder / "00000" / "00000_00029.ppm")
    image = read_split("gtsrb:train").images[0, 0]
    assert (image[:, :15] == 0).all()
    assert (image[:, 17:] == 1).all()


def test_pictures_without_their_table_are_missing(root):
    picture(root / "gtsrb" / "Final_Test" / "Images" / "00000.ppm", 1)
    (root / "gtsrb" / "Final_Test" / "Images" / "GT-final_test.test.csv").write_text("Filename;Width\n")
    with pytest.raises(DataError, match=r"gtsrb:test is not in .*GT-final_test\.csv"):
        read_split("gtsrb:test")


def test_a_table_without_its_pictures_is_named(root):
    final_test(root / "elsewhere", root / "gtsrb" / "GT-final_test.csv")
    with pytest.raises(DataError, match="its pictures are not"):
        read_split("gtsrb:test")


def test_a_picture_that_is_missing_is_named(root):
    train(root / "gtsrb")
    (root / "gtsrb" / "00001" / "00001_00029.ppm").unlink()
    with pytest.raises(DataError, match=r"00001_00029\.ppm.*No such file"):
        read_split("gtsrb:train")


@pytest.mark.parametrize(
    "line", ["../../secret.ppm;1;1;1;1;1;1;0", "00000.ppm;1;1;1;1;1;1;", "00000.ppm;1", "a.ppm;1;1;1;1;1;1;x"]
)
def test_a_strange_line_is_quoted(root, line):
    train(root / "gtsrb", classes=(0,))
    table = root / "gtsrb" / "00000" / "GT-00000.csv"
    table.write_text(table.read_text() + line)
    with pytest.raises(DataError, match=r"GT-00000\.csv, line 4: expected Filename"):
        read_split("gtsrb:train")


def test_a_class_beyond_43_is_refused(root):
    train(root / "gtsrb", classes=(43,))
    with pytest.raises(DataError, match="label 43, but there are 43 classes"):
        read_split("gtsrb:train")
