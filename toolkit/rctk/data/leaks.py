"""Notes on images that make a result look better than it is; nothing is refused, since the user may mean it."""

from __future__ import annotations

from rctk.data.read import is_test
from rctk.data.split import Split
from rctk.progress import Progress


def tell_learning(train: Split, validation: Split | None, progress: Progress) -> None:
    """Say where training or validation sees test images, and where the two share images.

    Args:
        train: What is trained on.
        validation: What the user named to choose the best epoch by; None where training images are held back.
        progress: Hears the notes.
    """
    _tell_test(train, "are learned from", progress)
    if validation is None:
        return
    if validation.name != train.name:
        _tell_test(validation, "choose the best epoch", progress)
    both = shared(train, validation)
    if both:
        progress.note(
            f"{both} of {len(validation)} validation images are training images too, so their accuracy looks better "
            "than it is; name others with --validation, or leave it out"
        )


def tell_calibration(calibration: Split, wanted: int, progress: Progress) -> None:
    """Say where calibration sees test images, or fewer images than it was to see.

    Args:
        calibration: What the images are drawn from.
        wanted: How many calibration was to see.
        progress: Hears the notes.
    """
    _tell_test(calibration, "set the ranges", progress)
    if len(calibration) < wanted:
        progress.note(
            f"calibration sees {len(calibration)} images of {calibration.name}, all there are, and not {wanted}"
        )


def shared(train: Split, validation: Split) -> int:
    """Count the images of ``validation`` that are in ``train`` too, pixel by pixel, whatever the splits are called."""
    known = {hash(image.tobytes()) for image in train.images}  # 8 bytes each; two that clash are one image too many
    return sum(hash(image.tobytes()) in known for image in validation.images)


def _tell_test(split: Split, use: str, progress: Progress) -> None:
    if is_test(split.name):
        progress.note(
            f"{split.name} holds test images, which {use}: what is measured on them later looks better than it is; "
            "name others"
        )
