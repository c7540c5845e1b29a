"""A run that was stopped and goes on must not differ from one that was not, in any bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from rctk.data.split import Split
from rctk.models import build_architecture
from rctk.train import ResumeFile, TrainSettings, build_objective, draw_weights, train
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import OptionError

SPEC = InputSpec(channels=1, height=8, width=8)
DROPOUT = "from torch import nn\ndef net():\n    return nn.Sequential({layers})\n"
LAYERS = "nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(288, 10)"


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    split = Split(
        name="digits", images=(data.images / 16).astype(np.float32)[:, None], labels=data.target.astype(np.int64)
    )
    return split.take(np.arange(200)), split.take(np.arange(200, 300))


@pytest.fixture(scope="module")
def arch(tmp_path_factory):
    """A net with everything that has a state: BatchNorm and dropout."""
    path = tmp_path_factory.mktemp("nets") / "nets.py"
    path.write_text(DROPOUT.format(layers=LAYERS))
    return f"{path}:net"


def fresh(arch):
    module = build_architecture(arch, classes=10, input=SPEC)
    draw_weights(module, torch.Generator().manual_seed(0))
    return module


class Stopped(Exception):  # noqa: N818
    pass


def run(arch, digits, settings, path=None, *, go_on=False, stop_after=None, spec=SPEC):
    """Train; return history and every weight, as saved after each epoch."""
    seen = []

    def look(epoch, module):
        seen.append(torch.cat([value.flatten().float() for value in module.state_dict().values()]).clone())
        if epoch.number == (stop_after or 0) + 1 and stop_after:
            raise Stopped  # while an epoch is reported: it does not count as finished

    keep = ResumeFile(path=path, go_on=go_on) if path else None
    try:
        history = train(fresh(arch), *digits, settings, input=spec, progress=look, resume=keep)
    except Stopped:
        history = None
    return history, seen


CASES = {
    "sgd, dropout and crops": {"augment": "crop:padding=1+flip"},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "schedule": "cosine"},
    "float32": {"precision": "32", "channels_last": False},
    "ema": {"averaging": "ema", "ema_decay": 0.9},
    "swa": {"averaging": "swa", "swa_start": 0.25, "schedule": "constant"},
    "pgd-at, mixup": {"objective": build_objective("pgd-at:eps=0.1,steps=2"), "augment": "mixup"},
    "trades": {"objective": build_objective("trades:eps=0.1,steps=2")},
    "free-at": {"objective": build_objective("free-at:eps=0.1,replays=2")},
    "fast-at": {"objective": build_objective("fast-at:eps=0.1,max_drop=1")},
}


@pytest.mark.parametrize("case", CASES)
def test_two_epochs_and_two_more_are_four(case, arch, digits, tmp_path):
    settings = TrainSettings(
        **{"epochs": 4, "batch_size": 50, "lr": 0.1, "validation_steps": 2, "seed": 3} | CASES[case]
    )
    path = tmp_path / "state.pt"
    through, all_weights = run(arch, digits, settings)
    stopped, first = run(arch, digits, settings, path, stop_after=2)
    assert stopped is None
    assert path.exists()
    resumed, rest = run(arch, digits, settings, path, go_on=True)
    assert len(rest) == 2
    for epoch, (a, b) in enumerate(zip(all_weights, [*first[:2], *rest], strict=True), start=1):
        assert torch.equal(a, b), f"epoch {epoch}"
    for key, value in through.best_weights.items():
        assert torch.equal(value, resumed.best_weights[key])
    assert [replace(epoch, seconds=0) for epoch in through.epochs] == [
        replace(epoch, seconds=0) for epoch in resumed.epochs
    ]
    assert not path.exists()  # the run is through


def test_a_resumption_with_other_settings_or_data_is_refused(arch, digits, tmp_path):
    settings = TrainSettings(epochs=2, batch_size=50, validation_steps=1)
    path = tmp_path / "state.pt"
    run(arch, digits, settings, path, stop_after=1)
    state = path.read_bytes()
    with pytest.raises(OptionError, match=r"of a run with lr 0\.1, this one has 0\.2; give the same"):
        run(arch, digits, replace(settings, lr=0.2), path, go_on=True)
    with pytest.raises(OptionError, match="of a run with epochs 2, this one has 3"):
        run(arch, digits, replace(settings, epochs=3), path, go_on=True)
    with pytest.raises(OptionError, match="of a run with objective Standard"):
        run(arch, digits, replace(settings, objective=build_objective("pgd-at")), path, go_on=True)
    with pytest.raises(OptionError, match="of a run with training images"):
        run(arch, (digits[0].take(np.arange(199)), digits[1]), settings, path, go_on=True)
    with pytest.raises(OptionError, match="of a run with layers"):
        run("mlp:hidden=16", digits, settings, path, go_on=True)
    with pytest.raises(
        OptionError, match=r"of a run with input 1x8x8 with mean 0\.0 and std 1\.0, this one has 1x8x8 with mean 0\.5"
    ):
        run(arch, digits, settings, path, go_on=True, spec=replace(SPEC, mean=(0.5,)))
    assert path.read_bytes() == state  # nothing is lost


def test_what_is_no_state_is_refused(arch, digits, tmp_path):
    settings = TrainSettings(epochs=1, batch_size=50)
    with pytest.raises(OptionError, match=r"there is no .* leave --resume out"):
        run(arch, digits, settings, tmp_path / "none.pt", go_on=True)
    (tmp_path / "bad.pt").write_bytes(b"something else")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pt")
    for name in ("bad.pt", "other.pt"):
        with pytest.raises(OptionError, match="is damaged or no state of a training run"):
            run(arch, digits, settings, tmp_path / name, go_on=True)


def test_as_many_values_in_other_shapes_are_another_run(digits, tmp_path):
    net = "from torch import nn\ndef net():\n    return nn.Sequential({layers})\n"
    layers = "nn.Conv2d(1, 4, {kernel}), nn.Flatten(), nn.Linear(192, 10)"
    for name, kernel in (("wide", (1, 3)), ("high", (3, 1))):
        (tmp_path / f"{name}.py").write_text(net.format(layers=layers.format(kernel=kernel)))
    settings, path = TrainSettings(epochs=2, batch_size=50, validation_steps=1), tmp_path / "state.pt"
    run(f"{tmp_path / 'wide.py'}:net", digits, settings, path, stop_after=1)
    with pytest.raises(OptionError, match="of a run with layers Sequential with 1946 values in 4 tensors"):
        run(f"{tmp_path / 'high.py'}:net", digits, settings, path, go_on=True)


def test_a_bit_that_turned_on_the_disk_is_noticed(arch, digits, tmp_path):
    settings, path = TrainSettings(epochs=2, batch_size=50, validation_steps=1), tmp_path / "state.pt"
    run(arch, digits, settings, path, stop_after=1)
    whole = path.read_bytes()
    for place in (len(whole) // 3, len(whole) // 2, len(whole) - 1):  # torch reads on over most of them
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(OptionError, match="is damaged or no state"):
            run(arch, digits, settings, path, go_on=True)


def test_a_step_of_a_recipe_makes_a_damaged_state_again(arch, digits, tmp_path):
    settings, path = TrainSettings(epochs=2, batch_size=50, validation_steps=1), tmp_path / "state.pt"
    path.write_bytes(b"half a file")
    keep = ResumeFile(path=path, go_on=True, needed=False)
    history = train(fresh(arch), *digits, settings, input=SPEC, progress=lambda _epoch, _module: None, resume=keep)
    assert [epoch.number for epoch in history.epochs] == [1, 2]
