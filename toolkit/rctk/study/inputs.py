"""What decides results besides settings: files by their hash, images by their fingerprint, versions, the machine."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rctk.data import read_split
from rctk.machine import machine_facts
from rctk.study.commands import Images
from rctk_export.bundle import file_sha256
from rctk_export.input_spec import InputSpec

TIMING = ("cpu", "cores_logical", "cores_quota", "memory_bytes", "board", "gpus")
"""Facts of a machine that a time belongs to."""


class Fingerprints:
    """Fingerprints of images; each draw is read once and not kept."""

    def __init__(self) -> None:
        self._found: dict[tuple[Images, InputSpec | None], str] = {}

    def of(self, images: Images, spec: InputSpec | None) -> str:
        """Return the fingerprint of exactly the images that a command will read."""
        images = images._replace(key="", seed=0 if images.samples is None else images.seed)
        if (images, spec) not in self._found:
            split = read_split(
                images.text, samples=images.samples, seed=images.seed, input=spec, download=images.download
            )
            self._found[images, spec] = split.fingerprint
        return self._found[images, spec]


def hashes_of_files(words: Iterable[str]) -> dict[str, str]:
    """Return the hash of every file that is named in settings, such as a teacher or the source of an architecture."""
    parts = {part for word in words for part in (word.partition("=")[2], *re.split("[=,;:]", word))}
    return {part: file_sha256(Path(part)) for part in sorted(parts) if _is_file(part)}


def texts_in(value: Any) -> list[str]:
    """Return every text in lists and mappings, however deep."""
    if isinstance(value, dict):
        return [text for item in value.values() for text in texts_in(item)] + [str(key) for key in value]
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in texts_in(item)]
    return [str(value)]


def timing_facts() -> dict[str, Any]:
    """Return what a time depends on, of this machine."""
    facts = machine_facts()
    return {key: facts[key] for key in TIMING}


def _is_file(text: str) -> bool:
    try:
        return bool(text) and Path(text).is_file()
    except (OSError, ValueError):
        return False
