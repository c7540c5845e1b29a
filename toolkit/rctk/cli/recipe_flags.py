"""Which steps to run; shared by ``rctk compress`` and ``rctk export``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from rctk.cli.flags import Repeated, fraction
from rctk.cli.places import check_folder
from rctk_kernels.errors import OptionError

if TYPE_CHECKING:
    from rctk.compress.recipe import Recipe


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RecipeFlags:
    """The steps, what they validate on, and where finished ones are kept."""

    recipe: Path | None = None
    """YAML file with a list of step:key=value; see `rctk list steps`."""
    step: Annotated[tuple[str, ...], Repeated] = ()
    """One step as step:key=value,key=value instead of a recipe; may be repeated."""
    target_latency: Annotated[float | None, Parameter(converter=fraction)] = None
    """Prune first, until the int8 engine takes this share of its time, by prune.depgraph:by=latency."""
    validation: str | None = None
    """Images that steps choose and are judged by; a tenth of the training images by default."""
    work: Path | None = None
    """Folder for finished steps, from which a stopped recipe goes on; OUT-steps by default."""

    def read(self) -> Recipe | None:
        """Return the recipe, checked as a whole; None where no step is given."""
        from rctk.compress.recipe import read_recipe  # noqa: PLC0415  # torch, only where there are steps

        return read_recipe(self.recipe, (*self._pruning(), *self.step))

    def _pruning(self) -> tuple[str, ...]:
        if self.target_latency is None:
            return ()
        if not 0 < self.target_latency < 1:
            raise OptionError(
                f"--target-latency is a share of the engine's time between 0 and 1, got {self.target_latency}"
            )
        if self.recipe is not None:
            raise OptionError("give --target-latency or --recipe; in a recipe it is prune.depgraph: {by: latency}")
        return (f"prune.depgraph:by=latency,ratio={1 - self.target_latency:.6g}",)

    def folder(self, out: Path) -> Path:
        """Return where finished steps are kept, if something can be written there."""
        folder = self.work or out.with_name(f"{out.stem}-steps")
        check_folder(folder, "--work")
        return folder
