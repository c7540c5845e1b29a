"""Random numbers that belong to an image, not to its place in a batch.

Every image gets a 64-bit seed from its own pixels and from the user's seed; draw number ``k`` of that image is a pure
function of both. So a result does not change when a batch is cut differently or when other images leave it, and two
batches never share a start. The generator is SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number
Generators", OOPSLA 2014, https://doi.org/10.1145/2660193.2660195), which is cheap to evaluate for many images at once.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from rctk_export.input_spec import FloatNCHW

Words = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def image_seeds(x: FloatNCHW, base: int) -> Words:
    """Return one seed per image, ``(N,)``, from its pixels and ``base``, a whole number in 0 .. 2^63 - 1."""
    key = int(base).to_bytes(8, "little")
    digests = [hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=8, key=key).digest() for image in x]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def base_seed(rng: np.random.Generator) -> int:
    """Draw the number that :func:`image_seeds` mixes with each image."""
    return int(rng.integers(2**63))


def words(seeds: Words, first: int, count: int) -> Words:
    """Return draws ``first`` to ``first + count - 1`` of every stream, ``(N, count)`` uint64."""
    steps = np.arange(first + 1, first + 1 + count, dtype=np.uint64) * _GOLDEN
    z: Words = seeds[:, None] + steps
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    z ^= z >> np.uint64(31)
    return z


def below(draws: Words, limit: int) -> npt.NDArray[np.int64]:
    """Map the upper 32 bits of each draw to a whole number in 0 .. ``limit`` - 1."""
    return (((draws >> np.uint64(32)) * np.uint64(limit)) >> np.uint64(32)).astype(np.int64)


def uniform(seeds: Words, shape: tuple[int, ...], *, stream: int = 0) -> FloatNCHW:
    """Return float32 numbers in [0, 1), ``(N, *shape)``; ``stream`` separates independent uses of one seed."""
    count = int(np.prod(shape))
    draws = words(words(seeds, stream, 1)[:, 0], 0, count)
    numbers = (draws >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
    return numbers.reshape(len(seeds), *shape)


def normal(seeds: Words, shape: tuple[int, ...], *, stream: int = 0) -> FloatNCHW:
    """Return standard normal float32 numbers, ``(N, *shape)``, by Box and Muller's transform."""
    u = uniform(seeds, (2, *shape), stream=stream)
    radius = np.sqrt(-2 * np.log1p(-u[:, 0]))
    result: FloatNCHW = radius * np.cos(np.float32(2 * np.pi) * u[:, 1])
    return result


def noise_l2(seeds: Words, shape: tuple[int, ...], *, stream: int = 0) -> FloatNCHW:
    """Return one direction of length 1 per image, ``(N, *shape)``."""
    direction = normal(seeds, shape, stream=stream)
    axes = tuple(range(1, direction.ndim))
    length = np.sqrt((direction**2).sum(axis=axes, keepdims=True))
    result: FloatNCHW = direction / np.maximum(length, np.float32(1e-12))
    return result
