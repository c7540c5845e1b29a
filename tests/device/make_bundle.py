"""Make the small bundle, digits and candidates of the device tests; run it on the host when the bundle format changes.

python tests/device/make_bundle.py
"""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from rctk.cli.main import run as main_of_rctk
from rctk.data import read_split
from rctk.exporting.export import ExportSettings, export_int8
from rctk.exporting.float_model import FloatModel
from rctk_export.capture import capture
from rctk_export.input_spec import InputSpec

HERE = Path(__file__).parent / "data"
CRAFT = (
    "attack bundle --on float --on engine --attack apgd-ce:steps=20 --eps 0.08 --data digits.npz --samples 60 "
    "--save-candidates candidates.npz"
)


def main() -> None:
    """Train a two-layer net on digits and export it for the cpu target."""
    torch.manual_seed(0)
    train, test = read_split("digits:train"), read_split("digits:test", samples=200)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    x, y = torch.from_numpy(train.images), torch.from_numpy(train.labels)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        optimizer.step()
    spec = InputSpec(channels=1, height=8, width=8)
    source = FloatModel(
        model=capture(module.eval(), spec),
        input=spec,
        classes=tuple("0123456789"),
        origin={"source": "digits", "arch": "64-24-10"},
    )
    export_int8(source, train, HERE / "bundle", ExportSettings(targets=("cpu",)), force=True)
    images = np.rint(test.images.transpose(0, 2, 3, 1) * 255).astype(np.uint8)
    np.savez_compressed(HERE / "digits.npz", images=images, labels=test.labels)
    with chdir(HERE), TemporaryDirectory() as runs:  # a record of the file holds the paths as they are given here
        main_of_rctk(f"{CRAFT} --out {runs}".split())


if __name__ == "__main__":
    main()
