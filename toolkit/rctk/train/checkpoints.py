"""The best and the last epoch on disk, from the first epoch on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from rctk.checkpoint import save_checkpoint
from rctk.train.settings import Epoch
from rctk_export.input_spec import InputSpec


def last_path(path: Path) -> Path:
    """Return where the last epoch goes, beside the best one at ``path``.

    Example:
        >>> last_path(Path("model.pt")).name
        'model-last.pt'
    """
    return path.with_name(f"{path.stem}-last{path.suffix}")


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """Saves after every epoch; give it to :func:`rctk.train.train` as ``progress``.

    Each file is replaced in one step, so an interrupted run leaves those of its last finished epoch.

    Attributes:
        path: Of the best epoch so far; the last one goes beside it, ``model-last.pt`` for ``model.pt``.
        arch: Text of ``--arch`` that made the module.
        input: Its input spec.
        classes: Names of its classes.
        then: Called afterwards, for example to print a line.
    """

    path: Path
    arch: str
    input: InputSpec
    classes: tuple[str, ...]
    then: Callable[[Epoch, nn.Module], None] | None = None

    @property
    def last_path(self) -> Path:
        """Where the last finished epoch is."""
        return last_path(self.path)

    def __call__(self, epoch: Epoch, module: nn.Module) -> None:
        """Save ``module`` as it is after ``epoch``, without wall times: the same weights are the same file."""
        kept = {name: value for name, value in asdict(epoch).items() if name != "seconds"}
        for path in (self.last_path, self.path) if epoch.best else (self.last_path,):
            save_checkpoint(
                path,
                module,
                arch=self.arch,
                input=self.input,
                classes=self.classes,
                extra={"epoch": kept},
            )
        if self.then is not None:
            self.then(epoch, module)
