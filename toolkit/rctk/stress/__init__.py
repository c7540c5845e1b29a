"""Stress that nobody crafted: corruptions, occlusion, shifts and rotations, JPEG. NumPy, but for JPEG's Pillow."""

from __future__ import annotations

from typing import NamedTuple

from rctk.stress.condition import StressTest
from rctk_export.registry import Family

__all__ = ["CORRUPTIONS", "STRESS_TESTS", "Row"]


class Row(NamedTuple):
    """One corruption: what it is, its group in the benchmark, and where its function lies as ``module:function``."""

    what: str
    where: str
    function: str


_HERE = "rctk.stress.corruptions"

CORRUPTIONS: dict[str, Row] = {
    "gaussian_noise": Row("Gaussian noise, as in low light", "noise", f"{_HERE}.gaussian_noise:gaussian_noise"),
    "shot_noise": Row("Poisson noise of single photons", "noise", f"{_HERE}.shot_noise:shot_noise"),
    "impulse_noise": Row("salt and pepper from bit errors", "noise", f"{_HERE}.impulse_noise:impulse_noise"),
    "defocus_blur": Row("lens out of focus", "blur", f"{_HERE}.defocus_blur:defocus_blur"),
    "glass_blur": Row("frosted glass", "blur", f"{_HERE}.glass_blur:glass_blur"),
    "motion_blur": Row("camera moves sideways", "blur", f"{_HERE}.motion_blur:motion_blur"),
    "zoom_blur": Row("camera moves forward", "blur", f"{_HERE}.zoom_blur:zoom_blur"),
    "snow": Row("falling snow", "weather", f"{_HERE}.snow:snow"),
    "frost": Row("ice on the lens, from a procedural texture", "weather", f"{_HERE}.frost:frost"),
    "fog": Row("fog from a fractal height map", "weather", f"{_HERE}.fog:fog"),
    "brightness": Row("brighter light", "weather", f"{_HERE}.brightness:brightness"),
    "contrast": Row("less contrast", "digital", f"{_HERE}.contrast:contrast"),
    "elastic_transform": Row("stretched and bent regions", "digital", f"{_HERE}.elastic_transform:elastic_transform"),
    "pixelate": Row("upsampled small image", "digital", f"{_HERE}.pixelate:pixelate"),
    "jpeg_compression": Row("JPEG artefacts", "digital", f"{_HERE}.jpeg_compression:jpeg_compression"),
    "speckle_noise": Row("noise in proportion to the light", "held out", f"{_HERE}.speckle_noise:speckle_noise"),
    "gaussian_blur": Row("Gaussian blur", "held out", f"{_HERE}.gaussian_blur:gaussian_blur"),
    "spatter": Row("drops of water or mud, without shaded rims", "held out", f"{_HERE}.spatter:spatter"),
    "saturate": Row("less or more colour", "held out", f"{_HERE}.saturate:saturate"),
}
"""Types of Hendrycks and Dietterich: 15 that count in mCE and mPC, and 4 held out for development."""

STRESS_TESTS: Family[StressTest] = Family(
    "stress test",
    {
        "jpeg": "rctk.stress.jpeg:Jpeg",
        "occlusion": "rctk.stress.occlusion:Occlusion",
        "spatial": "rctk.stress.spatial:Spatial",
    },
)
