"""Which steps to run; shared by ``rctk compress`` and ``rctk export``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from rctk.cli.flags import Repeated
from rctk.cli.places import check_folder

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
    validation: str | None = None
    """Images that steps choose and are judged by; a tenth of the training images by default."""
    work: Path | None = None
    """Folder for finished steps, from which a stopped recipe goes on; OUT-steps by default."""

    def read(self) -> Recipe | None:
        """Return the recipe, checked as a whole; None where no step is given."""
        from rctk.compress.recipe import read_recipe  # noqa: PLC0415  # torch, only where there are steps

        return read_recipe(self.recipe, self.step)

    def folder(self, out: Path) -> Path:
        """Return where finished steps are kept, if something can be written there."""
        folder = self.work or out.with_name(f"{out.stem}-steps")
        check_folder(folder, "--work")
        return folder
