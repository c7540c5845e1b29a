"""Training whose last epoch counts, not its best."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from rctk.compress.step import Context
from rctk.train.resume import ResumeFile
from rctk.train.settings import TrainSettings
from rctk.train.step import train_stage


def train_to_the_end(
    module: nn.Module,
    context: Context,
    settings: TrainSettings,
    *,
    stage: str,
    resume: ResumeFile | None = None,
    remark: Callable[[], str] = str,
) -> None:
    """Train ``module`` in place and leave it with the weights of its last epoch, in evaluation mode.

    For what only a whole run brings about, such as scales that reach zero: validation accuracy may be at its best
    before that. :func:`rctk.train.step.train_stage` keeps the best epoch.

    Args:
        module: Maps normalised images to logits.
        context: Images and progress.
        settings: All settings of the loop.
        stage: What progress calls this.
        resume: Where the state after each epoch is kept.
        remark: What else is said of an epoch.
    """
    history = train_stage(module, context, settings, stage=stage, resume=resume, remark=remark)
    module.load_state_dict(history.last_weights)
