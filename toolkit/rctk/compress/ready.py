"""What a step needs of machine, files and network, looked at before the steps in front of it take hours."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from rctk.compress.recipe import Named
from rctk.compress.step import Context, ModuleReady
from rctk.train.step import check_training
from rctk_kernels.errors import RctkError


def check_ready(steps: Sequence[Named], context: Context, module: nn.Module | None = None) -> None:
    """Refuse what a step could not do here, with its number and name.

    Args:
        steps: The whole recipe.
        context: With the ``parent`` for module steps.
        module: Enters the first step; None where all module steps are done. A step may find other layers than these
            when it begins, so each looks again then.
    """
    for number, named in enumerate(steps, start=1):
        _check(named, f"step {number} of {len(steps)}, {named.name}", context, module)


def _check(named: Named, where: str, context: Context, module: nn.Module | None) -> None:
    try:
        check_training(named.step)
        if module is not None and isinstance(named.step, ModuleReady):
            named.step.check_ready(module, context)
    except RctkError as error:
        raise type(error)(f"{where}: {error}") from error
