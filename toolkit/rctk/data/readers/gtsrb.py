"""GTSRB, the German traffic sign benchmark, in its official folders."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from rctk.data.pictures import read_pictures
from rctk.data.source import Pixels, Request, Source
from rctk.data.split import Labels
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import DataError

TRAIN_FOLDERS = ("Final_Training/Images", "Training", "train", ".")
TEST_FOLDERS = ("Final_Test/Images", "Final_Test", "Test", "test", ".")
TEST_TABLE = "GT-final_test.csv"  # the table inside the picture archive, GT-final_test.test.csv, has no classes
SIZE = InputSpec(channels=3, height=32, width=32)


def read(request: Request) -> Source | None:
    """Read training (``00000/GT-00000.csv`` ...) or test pictures (``GT-final_test.csv``).

    The whole picture, not its region of interest, is scaled to the model's input, or to 32 x 32.

    Reference:
        Stallkamp et al., "Man vs. computer: Benchmarking machine learning algorithms for traffic sign recognition",
        Neural Networks 32, 2012. https://benchmark.ini.rub.de/gtsrb_dataset.html
    """
    find = {"train": _train_tables, "test": _test_table}.get(request.split)
    tables = find(request.path) if find else []
    files: list[Path] = []
    labels: list[int] = []
    for table, folder in tables:
        _read_table(table, folder, files, labels)
    if not files:
        return None

    def load(rows: Labels) -> Pixels:
        return read_pictures([files[row] for row in rows], request.input or SIZE, "stretch")

    return Source(where=request.path, labels=np.array(labels, dtype=np.int64), load=load)


def _train_tables(path: Path) -> list[tuple[Path, Path]]:
    for base in (path, path / "GTSRB"):
        for name in TRAIN_FOLDERS:
            tables = sorted((base / name).glob("[0-9][0-9][0-9][0-9][0-9]/GT-[0-9]*.csv"))
            if tables:
                return [(table, table.parent) for table in tables]
    return []


def _test_table(path: Path) -> list[tuple[Path, Path]]:
    bases = (path, path / "GTSRB")
    folders = [base / name for base in bases for name in TEST_FOLDERS]
    table = next((folder / TEST_TABLE for folder in folders if (folder / TEST_TABLE).is_file()), None)
    if table is None:
        return []
    holder = next((folder for folder in folders if (folder / "00000.ppm").is_file()), None)
    if holder is None:
        raise DataError(f"{table} is there but its pictures are not; put 00000.ppm ... into {path / TEST_FOLDERS[0]}")
    return [(table, holder)]


def _read_table(table: Path, folder: Path, files: list[Path], labels: list[int]) -> None:
    with table.open(newline="", encoding="utf-8", errors="replace") as stream:
        for number, row in enumerate(csv.DictReader(stream, delimiter=";"), start=2):
            name, label = row.get("Filename"), row.get("ClassId")
            if not name or not label or not label.strip().isdecimal() or Path(name).name != name:
                raise DataError(
                    f"{table}, line {number}: expected Filename;...;ClassId with a plain file name and a class number, "
                    f"got {';'.join(str(value) for value in row.values())[:80]!r}"
                )
            files.append(folder / name)
            labels.append(int(label))
