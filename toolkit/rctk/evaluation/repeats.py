"""The same suite with several seeds, or attack by attack: one result, the worst case per image, and the spread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from rctk.evaluation.rounds import Entry
from rctk.evaluation.suite import SuiteResult
from rctk.statistics.planning import Spread, spread
from rctk_kernels.errors import OptionError


def repeated(run: Callable[[int], SuiteResult], seed: int, repeats: int) -> tuple[SuiteResult, dict[str, Spread]]:
    """Run a suite with ``repeats`` seeds from ``seed`` on; return the worst case per image and the spread per subject.

    Args:
        run: Attacks with the seed it is given, always the same subjects and images.
        seed: The first one.
        repeats: Runs; with 1 the spread is empty.
    """
    if repeats < 1:
        raise OptionError(f"--repeats must be at least 1, got {repeats}")
    results = [run(seed + turn) for turn in range(repeats)]
    if repeats == 1:
        return results[0], {}
    spreads = {name: spread(np.stack([one.robust[name] for one in results])) for name in results[0].clean}
    both = merged(results)
    return replace(both, settings={**both.settings, "seed": seed, "repeats": repeats}), spreads


def merged(results: Sequence[SuiteResult]) -> SuiteResult:
    """Return the union of suites on the same subjects and images: right and robust means in every one of them."""
    first = results[0]
    if any(set(one.clean) != set(first.clean) or one.samples != first.samples for one in results):
        raise OptionError("suites on other subjects or images have no common worst case")
    names = list(first.clean)
    attacks = tuple(dict.fromkeys(text for one in results for text in _attacks(one)))
    return SuiteResult(
        clean={name: np.all([one.clean[name] for one in results], axis=0) for name in names},
        robust={name: np.all([one.robust[name] for one in results], axis=0) for name in names},
        adversarial={name: _adversarial(results, name) for name in names},
        queries={name: np.sum([one.queries[name] for one in results], axis=0) for name in names},
        entries=_entries(results),
        settings={**first.settings, "attacks": attacks},
        notes=tuple(dict.fromkeys(note for one in results for note in one.notes)),
    )


def _attacks(result: SuiteResult) -> Sequence[str]:
    attacks = result.settings["attacks"]
    assert isinstance(attacks, tuple)
    return attacks


def _adversarial(results: Sequence[SuiteResult], name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return per image the candidate of the first result that broke it, else that of the last one."""
    images = results[-1].adversarial[name].copy()
    for one in reversed(results):
        broke = one.clean[name] & ~one.robust[name]
        images[broke] = one.adversarial[name][broke]
    return images


def _entries(results: Sequence[SuiteResult]) -> tuple[Entry, ...]:
    """Add up the entries of one attack for one subject."""
    found: dict[tuple[str, str], Entry] = {}
    for entry in (entry for one in results for entry in one.entries):
        key = (entry.attack, entry.subject)
        found[key] = _both(found[key], entry) if key in found else entry
    return tuple(found.values())


def _both(first: Entry, second: Entry) -> Entry:
    backward = first.backward_passes + second.backward_passes
    zeros = first.zero_gradient_share * first.backward_passes + second.zero_gradient_share * second.backward_passes
    robust: Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]] = {
        name: flags & second.robust[name] for name, flags in first.robust.items()
    }
    return replace(
        first,
        tried=first.tried | second.tried,
        robust=robust,
        queries=first.queries + second.queries,
        forward_passes=first.forward_passes + second.forward_passes,
        backward_passes=backward,
        zero_gradient_share=zeros / backward if backward else 0.0,
        seconds=first.seconds + second.seconds,
        notes=tuple(dict.fromkeys((*first.notes, *second.notes))),
    )


class Apart:
    """Runs every attack by itself, so that each meets all images and can be gated by itself; see :meth:`each`.

    Args:
        run: Runs the attacks it is given with a seed.
        attacks: Attacks with settings.
        together: Run them all in one suite instead, where an image that one broke is spared the next.
    """

    def __init__(
        self, run: Callable[[Sequence[str], int], SuiteResult], attacks: Sequence[str], *, together: bool = False
    ) -> None:
        self._run, self._together = run, tuple(attacks) if together else ()
        self._parts: dict[str, list[SuiteResult]] = {} if together else {text: [] for text in attacks}

    def __call__(self, seed: int) -> SuiteResult:
        """Return the union of all attacks with this seed."""
        if self._together:
            return self._run(self._together, seed)
        for text, done in self._parts.items():
            done.append(self._run((text,), seed))
        return merged([done[-1] for done in self._parts.values()])

    def each(self) -> dict[str, SuiteResult]:
        """Return for every attack its worst case over the seeds so far."""
        return {text: merged(done) for text, done in self._parts.items()}
