"""What every engine does with a batch before and after its runtime sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rctk_export.input_spec import FloatNCHW, FloatNK, InputSpec
from rctk_kernels.errors import EngineError

Pixels = npt.NDArray[np.uint8]


class End(NamedTuple):
    """An input or output of a model."""

    name: str
    kind: str
    """Data type: ``float32`` and ``uint8`` can be fed, others only named in messages."""
    shape: tuple[int | None, ...] | None
    """None stands for a size that is left open; None as a whole for an unknown rank."""

    @property
    def batch(self) -> int | None:
        """Images that every run must have; None for any number."""
        return self.shape[0] if self.shape else None


def one_input_one_output(model: str, inputs: Sequence[End], outputs: Sequence[End], spec: InputSpec) -> tuple[End, End]:
    """Return the ends of a classifier; :class:`EngineError` names surplus ones, and an input that ``spec`` misses."""
    for what, ends in (("input", inputs), ("output", outputs)):
        if len(ends) != 1:
            names = ", ".join(end.name for end in ends) or "none"
            raise EngineError(f"{model} has {len(ends)} {what}s ({names}); rctk runs models with one of each")
    entry = inputs[0]
    if entry.kind not in {"float32", "uint8"}:
        raise EngineError(f"input {entry.name!r} of {model} is {entry.kind}; export it with float32 or uint8 images")
    sizes = (None,) * 4 if entry.shape is None else entry.shape
    if len(sizes) != 4 or any(have not in {None, want} for have, want in zip(sizes[1:], spec.shape, strict=True)):
        raise EngineError(
            f"input {entry.name!r} of {model} has shape {sizes}, the input spec says (N, C, H, W) with {spec.shape}; "
            "mend --input"
        )
    return entry, outputs[0]


def checked(images: FloatNCHW, spec: InputSpec) -> FloatNCHW:
    """Return ``images`` as C-contiguous float32; :class:`EngineError` unless they are ``(N, C, H, W)`` of ``spec``."""
    if images.ndim != 4 or images.shape[1:] != spec.shape:
        expected = ", ".join(str(size) for size in spec.shape)
        raise EngineError(f"the engine takes images (N, {expected}), got {images.shape}; resize them or mend --input")
    return np.ascontiguousarray(images, dtype=np.float32)


def pixels(images: FloatNCHW) -> Pixels:
    """Round images in [0, 1] to the 8-bit pixels that a graph with a uint8 input reads.

    Example:
        >>> pixels(np.array([0, 0.5, 1, 1.2], dtype=np.float32)).tolist()
        [0, 128, 255, 255]
    """
    if np.isnan(images).any():
        raise EngineError("the images hold NaN, which no 8-bit pixel can express; check what made them")
    rounded: FloatNCHW = np.rint(np.clip(images, 0, 1) * np.float32(255))
    return rounded.astype(np.uint8)


def in_fixed_batches(images: FloatNCHW, size: int, run: Callable[[FloatNCHW], FloatNK]) -> FloatNK:
    """Classify with a graph that takes exactly ``size`` images: in chunks, the last one filled up by repeating.

    Args:
        images: ``(N, C, H, W)``, N at least 1.
        size: Images per run.
        run: Classifies exactly ``size`` images.

    Returns:
        ``(N, K)``; the answers for the repeated images are dropped.
    """
    order = np.arange(-(-len(images) // size) * size) % len(images)
    chunks = [run(images[order[start : start + size]]) for start in range(0, len(order), size)]
    return np.concatenate(chunks)[: len(images)]


def in_range_batches(images: FloatNCHW, fewest: int, most: int | None, run: Callable[[FloatNCHW], FloatNK]) -> FloatNK:
    """Classify with a graph that takes ``fewest`` to ``most`` images: more are cut into chunks, fewer filled up.

    Args:
        images: ``(N, C, H, W)``, also of no image.
        fewest: Images that every run must have.
        most: Images that a run can take; any number for None.
        run: Classifies a batch of a size in between.

    Returns:
        ``(N, K)``.
    """
    if len(images) == 0:
        return run(np.zeros((fewest, *images.shape[1:]), dtype=np.float32))[:0].copy()
    size = len(images) if most is None else most
    whole = len(images) - len(images) % size
    parts = [run(images[start : start + size]) for start in range(0, whole, size)]
    rest = images[whole:]
    if 0 < len(rest) < fewest:
        parts.append(in_fixed_batches(rest, fewest, run))
    elif len(rest):
        parts.append(run(rest))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def checked_logits(logits: npt.NDArray[np.generic], count: int) -> FloatNK:
    """Return the caller's own float32 copy; :class:`EngineError` unless it is ``(count, K)``."""
    if logits.ndim != 2 or len(logits) != count:
        raise EngineError(f"expected logits ({count}, K) from the model, got shape {logits.shape}; is it a classifier?")
    return np.array(logits, dtype=np.float32)
