"""Image shapes that the built-in architectures were made for, and the sizes that follow from them."""

from __future__ import annotations

from rctk_kernels.errors import OptionError

Shape = tuple[int, int, int]
"""``(C, H, W)``."""

CIFAR: Shape = (3, 32, 32)
MNIST: Shape = (1, 28, 28)
DIGITS: Shape = (1, 8, 8)
IMAGENET: Shape = (3, 224, 224)


def pooled(size: int) -> int:
    """Return what 2x2 pooling leaves of ``size`` pixels; :class:`OptionError` where nothing is left.

    Example:
        >>> pooled(9)
        4
    """
    if size < 2:
        raise OptionError("the images are too small for this architecture; choose another one, such as mlp")
    return size // 2
