"""Data sets by name or path, as splits of images in [0, 1]."""

from __future__ import annotations

from rctk.data.catalog import DATASETS, DataSet
from rctk.data.read import read_split
from rctk.data.split import Split, check_labels

__all__ = ["DATASETS", "DataSet", "Split", "check_labels", "read_split"]
