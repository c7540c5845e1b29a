"""How much robustness a deployed form keeps of its float parent, and how far adversarial examples carry over."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rctk.evaluation.judge import Flags
from rctk.statistics import Interval, wilson
from rctk_kernels.errors import OptionError


class RelativeRobustness(NamedTuple):
    """Engine against float on the same images; None where the denominator is 0.

    Attributes:
        set_form: Share of the images on which float is robust that the engine is robust on, too.
        ratio: Robust accuracy of the engine over that of float; above 1 where the engine is better.
        on_common: The same ratio on images that both classify correctly before the attack, as Duncan et al. compare.
    """

    set_form: float | None
    ratio: float | None
    on_common: float | None


class TransferRate(NamedTuple):
    """Adversarial examples of a source, tried on a target.

    Attributes:
        examples: Examples that succeed on the source and whose clean image both classify correctly.
        fooled: Those of them that the target misclassifies.
        rate: ``fooled / examples``; None without examples.
        interval: Wilson's 95 % interval of the rate.
        efficiency: Accuracy that the transferred examples cost the target, over what attacking it directly costs;
            1 where transfer is as strong, None where no direct attack was given or it costs nothing.
    """

    examples: int
    fooled: int
    rate: float | None
    interval: Interval
    efficiency: float | None


def relative_robustness(
    float_clean: Flags, float_robust: Flags, engine_clean: Flags, engine_robust: Flags
) -> RelativeRobustness:
    """Compare who survives; all ``(N,)``, robust meaning right on the clean image and under attack.

    The original paper searched with a verification tool; its sets are read here as those of an attack.

    Reference:
        Duncan et al., "Relative Robustness of Quantized Neural Networks Against Adversarial Attacks", IJCNN 2020.
        https://doi.org/10.1109/IJCNN48605.2020.9207596

    Example:
        >>> yes = np.array([True, True, True, True])
        >>> relative_robustness(yes, np.array([True, True, False, False]), yes, np.array([True, False, True, False]))
        RelativeRobustness(set_form=0.5, ratio=1.0, on_common=1.0)
    """
    _same_length(float_clean, float_robust, engine_clean, engine_robust)
    common = float_clean & engine_clean
    return RelativeRobustness(
        set_form=_share(float_robust & engine_robust, float_robust),
        ratio=_ratio(engine_robust, float_robust),
        on_common=_ratio(engine_robust & common, float_robust & common),
    )


def transfer_rate(
    source_clean: Flags,
    source_robust: Flags,
    target_clean: Flags,
    target_robust: Flags,
    target_direct: Flags | None = None,
) -> TransferRate:
    """Return how many of the source's adversarial examples fool the target; call it again the other way round.

    Args:
        source_clean: ``(N,)``; the source is right on the clean image.
        source_robust: ``(N,)``; and on the candidate that was made for it.
        target_clean: ``(N,)``; the target is right on the clean image.
        target_robust: ``(N,)``; and on that same candidate.
        target_direct: ``(N,)``; and on the candidate that was made for the target itself.

    Example:
        >>> yes = np.array([True, True, True, True])
        >>> no = ~yes
        >>> transfer_rate(yes, no, yes, np.array([True, False, False, False]), no)[:3]
        (4, 3, 0.75)
    """
    _same_length(source_clean, source_robust, target_clean, target_robust)
    examples = source_clean & target_clean & ~source_robust
    fooled, count = int((examples & ~target_robust).sum()), int(examples.sum())
    return TransferRate(
        examples=count,
        fooled=fooled,
        rate=fooled / count if count else None,
        interval=wilson(fooled, count),
        efficiency=None if target_direct is None else _efficiency(target_clean, target_robust, target_direct),
    )


def _efficiency(clean: Flags, transferred: Flags, direct: Flags) -> float | None:
    _same_length(clean, direct)
    cost = int(clean.sum()) - int((clean & direct).sum())
    return (int(clean.sum()) - int((clean & transferred).sum())) / cost if cost else None


def _share(part: Flags, whole: Flags) -> float | None:
    return int(part.sum()) / int(whole.sum()) if whole.any() else None


def _ratio(over: Flags, under: Flags) -> float | None:
    return int(over.sum()) / int(under.sum()) if under.any() else None


def _same_length(*flags: Flags) -> None:
    if len({one.shape for one in flags}) != 1 or flags[0].ndim != 1 or any(one.dtype != np.bool_ for one in flags):
        shapes = ", ".join(f"{one.dtype} {one.shape}" for one in flags)
        raise OptionError(f"expected bool arrays (N,) about the same images, got {shapes}")
